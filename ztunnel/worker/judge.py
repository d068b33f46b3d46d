"""Policy has changed: connections that it does not allow any more are cut, some of them in each turn of the loop.

However many there are, and however fast changes follow each other, the others go on meanwhile.
"""

from __future__ import annotations

from mesh.model.state import MeshState
from mesh.model.workload import WorkloadUid
from mesh.policy.match import ConnectionFacts
from ztunnel.plan.inbound import denial
from ztunnel.plan.plan import Flag
from ztunnel.worker.connections import Book, Record
from ztunnel.worker.loop import Loop

RECORDS = 512  # looked at in one turn: well below a millisecond
VERDICTS = 32  # of them decided anew in one turn: each may go through thousands of rules


class Judge:
    """Every connection that lives when `policy_changed` is called is judged by that policy or a later one."""

    def __init__(self, loop: Loop, mesh: MeshState, book: Book) -> None:
        self._loop = loop
        self._mesh = mesh
        self._book = book
        self._waiting: list[Record] = []
        self._verdicts: dict[tuple[WorkloadUid, ConnectionFacts], str] = {}
        self._again = False  # policy has changed since this pass began

    def policy_changed(self) -> None:
        self._verdicts.clear()
        if self._waiting:
            self._again = True  # not from the start: changes that never end would keep it from the last ones
        else:
            self._begin()

    def _begin(self) -> None:
        self._again = False
        self._waiting = self._book.live()
        if self._waiting:
            self._loop.soon(self._some)

    def _some(self) -> None:
        if not self._waiting:
            self._verdicts.clear()
            if self._again:
                self._begin()
            return
        self._loop.soon(self._some)  # before anything that could fail: a defect in one connection spares no other
        decided = 0
        for _ in range(min(RECORDS, len(self._waiting))):
            decided += self._judge(self._waiting.pop())
            if decided >= VERDICTS:
                break

    def _judge(self, record: Record) -> int:
        """How many verdicts it took."""
        if record.permit is None or record.carrier is None:
            return 0
        case = record.workload, record.permit.facts
        known = case in self._verdicts
        if not known:
            self._verdicts[case] = denial(self._mesh, record.workload, record.permit)
        reason = self._verdicts[case]
        if reason:
            record.flag = Flag.DENY
            record.carrier.cut(f"cut because policy has changed: {reason}")
        return int(not known)
