"""A worker under attack: what it holds, and a bystander whose stream must go on meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.worker.hbone_client import HboneClient, tls_socket
from tests.worker.node import PATIENCE, Node, echo, in_background, serving

PORT = 8080
MIB = 1 << 20
PROGRESS = 3  # round trips of the bystander that must complete under attack


@dataclass(frozen=True)
class Holdings:
    """What a worker holds when it is left alone."""

    descriptors: int
    epoll: int
    counters: dict[str, int]


class Bystander:
    """An echo through a tunnel of its own, without a pause; `rounds` counts the answers."""

    def __init__(self, client: HboneClient, authority: str) -> None:
        self.rounds = 0
        self.failure = ""
        self._client = client
        self._going = True
        self._stream = client.connect(authority)
        assert client.status(self._stream) == 200
        self._thread = in_background(self._talk)

    def _talk(self) -> None:
        try:
            while self._going:
                message = self.rounds.to_bytes(8, "big")
                self._client.events.clear()
                self._client.send(self._stream, message)
                assert self._client.received(self._stream, 8) == message
                self.rounds += 1
                time.sleep(0.002)  # the machine is for the attack
        except (OSError, EOFError, AssertionError) as error:
            self.failure = repr(error)

    def must_progress(self) -> None:
        """Some more round trips, from now on."""
        goal, deadline = self.rounds + PROGRESS, time.monotonic() + PATIENCE
        while self.rounds < goal:
            assert not self.failure, self.failure
            assert time.monotonic() < deadline, "the bystander's stream stands still"
            time.sleep(0.002)

    def stop(self) -> None:
        self._going = False
        self._thread.join(PATIENCE)
        self._client.close()


class Arena:
    """Pod b is served and attacked, pod a attacks, and a bystander in pod a watches."""

    def __init__(self, node: Node, **environment: str) -> None:
        self.node = node
        self.worker = node.worker(node.b, **environment)
        serving(node.b.listen(PORT), echo)
        self.identity = node.certificate(node.a.identity)
        self.authority = f"{node.b.ip4}:{PORT}"
        self.bystander = Bystander(self.client(), self.authority)
        self.rest = self.at_rest()

    def client(self) -> HboneClient:
        return HboneClient(tls_socket(self.node.a, self.node.b, self.identity))

    @contextlib.contextmanager
    def attack(self, most_mib: float) -> Iterator[None]:
        """The bystander goes on during what happens inside; afterwards all is given back.

        `most_mib`: by how much the worker's memory may rise at its highest.
        """
        pid = self.worker.process.pid
        before = reset_peak(pid)
        self.bystander.must_progress()
        yield
        self.bystander.must_progress()
        self.settle()
        rise = (peak(pid) - before) / MIB
        assert rise <= most_mib, f"memory rose by {rise:.1f} MiB"

    def at_rest(self) -> Holdings:
        counters = self.worker.describe().counters
        return Holdings(
            *descriptors(self.worker.process.pid), counters={name: counters[name] for name in LEFT & {*counters}}
        )

    def settle(self) -> None:
        """Until the worker holds no more than it did in the beginning."""
        deadline = time.monotonic() + PATIENCE
        while (now := self.at_rest()) != self.rest:
            assert time.monotonic() < deadline, f"{now} is left, {self.rest} was there before"
            time.sleep(0.02)

    def close(self) -> None:
        self.bystander.stop()
        self.node.clear()


# Counters that say what is held now; the others say what has happened.
LEFT = {
    "connections",
    "connections_waiting_for_agent",
    "tunnels",
    "lingering",
    "pool_keys",
    "pool_tunnels",
    "pool_dials",
    "pool_dials_waiting",
    "pool_waiting",
    "inbound_tunnels",
    "inbound_handshakes",
    "inbound_peers",
    "inbound_streams",
    "inbound_held_bytes",
    "pool_streams",
    "pool_held_bytes",
}


def descriptors(pid: int) -> tuple[int, int]:
    """How many are open, and how many of them the event loop watches."""
    folder = Path(f"/proc/{pid}/fd")
    names = os.listdir(folder)
    polls = [name for name in names if _target(folder / name) == "anon_inode:[eventpoll]"]
    watched = sum(Path(f"/proc/{pid}/fdinfo/{name}").read_text().count("tfd:") for name in polls)
    return len(names), watched


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset_peak(pid: int) -> int:
    """Starts a new measurement of `peak`, and says where it starts."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident(pid)


def peak(pid: int) -> int:
    """The most bytes that were resident since `reset_peak`."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def wait(condition: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.01)
