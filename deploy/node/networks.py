"""Where the pods of this node have their network namespaces, without asking any container runtime.

Of a new pod the CNI plugin tells it; of a running one its processes, found through the cgroup of its uid, show it. What
was found is held open: neither a process id that is used again nor a path that is can lead to another pod's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.node.pod_cgroups import Candidate, choose, places, pod_of
from ebpf.cgroups import NoCgroup2, cgroup_of

log = logging.getLogger("networks")

PROC = Path("/proc")
NEVER_USED = 120.0  # seconds after which a namespace that no process has entered is given up: a sandbox takes one


class Netns:
    """An open network namespace, usable as a path for as long as somebody holds this."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self.identity = status.st_dev, status.st_ino

    def __fspath__(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@dataclass(slots=True)
class _Held:
    netns: Netns
    container: str = ""  # the sandbox that the CNI plugin spoke of
    inhabited: bool = True  # a process was seen in it: before, the pod's older processes are those of an older sandbox
    since: float = 0.0


class PodNetworks:
    """`kubepods` is the cgroup of all pods. `static` are the uids that the kubelet has given static pods, by those of
    their mirrors: it is the former that runtimes and cgroups know."""

    static: Mapping[str, str]

    def __init__(self, kubepods: Path, proc: Path = PROC) -> None:
        self._kubepods, self._proc = kubepods, proc
        self.static = {}
        self._held: dict[str, _Held] = {}
        self._host = frozenset(self._host_namespaces())

    def netns(self, uid: str) -> Netns | None:
        """None: there is none, not yet or not any more."""
        held = self._held.get(uid)
        if held is None:
            found = self._find(uid)
            if found is None or self._is_held(found):
                return None
            held = self._held[uid] = _Held(found)
        return held.netns

    def told(self, uid: str, path: Path, container: str) -> None:
        """The CNI plugin has made a pod's namespace; it counts from now on. Raises OSError, ValueError (the host's)."""
        netns = Netns(path)
        if netns.identity in self._host:
            raise ValueError(f"{path} is the network namespace of the host")
        self._correct(uid, netns)
        before = self._held.get(uid)
        if before is None or before.netns.identity != netns.identity:
            self._held[uid] = _Held(netns, container, inhabited=False, since=time.monotonic())
        else:
            before.container = container

    def look_again(self, uid: str) -> None:
        """A sandbox may have been made anew without a word from the CNI plugin."""
        held = self._held.get(uid)
        if held is None:
            return
        if held.netns.identity in {each.netns for each in self._candidates(uid)}:
            held.inhabited = True
        elif held.inhabited and (found := self._find(uid)) and not self._is_held(found):
            self._held[uid] = _Held(found)

    def is_of(self, uid: str, container: str) -> bool:
        """Whether the namespace that is known of a pod is that of this sandbox. Of one that was never told, which an
        agent that was restarted has found by itself, only its end can tell: an older sandbox is removed much later."""
        held = self._held.get(uid)
        return held is None or held.container == container or (not held.container and self.has_ended(uid))

    def has_ended(self, uid: str) -> bool:
        """Whether no process of the pod is left, of one that had any."""
        held = self._held.get(uid)
        begins = held is not None and not held.inhabited and time.monotonic() - held.since < NEVER_USED
        return not begins and not any(self._processes(uid))

    def forget(self, uid: str) -> None:
        self._held.pop(uid, None)

    def known(self) -> frozenset[str]:
        return frozenset(self._held)

    # --- inside

    def _correct(self, uid: str, netns: Netns) -> None:
        """What the CNI plugin says counts more than where processes were seen."""
        for other in [each for each, held in self._held.items() if held.netns.identity == netns.identity]:
            if other != uid:
                log.warning("pod %s is not in network namespace %d: that is of pod %s", other, netns.identity[1], uid)
                del self._held[other]

    def _is_held(self, netns: Netns) -> bool:
        """For another pod: a process that has gone there from elsewhere does not make it its pod's own."""
        return any(held.netns.identity == netns.identity for held in self._held.values())

    def _candidates(self, uid: str) -> Iterator[Candidate]:
        return filter(None, (self._candidate(process) for process in self._processes(uid)))

    def _find(self, uid: str) -> Netns | None:
        chosen = choose(self._candidates(uid), self._host)
        if chosen is None:
            return None
        try:
            netns = Netns(self._proc / str(chosen.process) / "ns" / "net")
            still = pod_of(cgroup_of(chosen.process, self._proc)) == self.static.get(uid, uid)
        except (OSError, NoCgroup2):
            return None
        return netns if still and netns.identity == chosen.netns else None

    def _candidate(self, process: int) -> Candidate | None:
        place = self._proc / str(process)
        try:
            started = int((place / "stat").read_text().rpartition(")")[2].split()[19])  # field 22 of proc_pid_stat(5)
            status = os.stat(place / "ns" / "net")
        except (OSError, IndexError, ValueError):
            return None  # it has ended
        return Candidate(process, started, (status.st_dev, status.st_ino))

    def _processes(self, uid: str) -> Iterator[int]:
        for place in places(self._kubepods.name, self.static.get(uid, uid)):
            for directory, _, _ in os.walk(self._kubepods / place):
                try:
                    yield from map(int, Path(directory, "cgroup.procs").read_text().split())
                except OSError:
                    continue  # it has ended

    def _host_namespaces(self) -> Iterator[tuple[int, int]]:
        for process in ("self", "1"):
            try:
                status = os.stat(PROC / process / "ns" / "net")
            except OSError:
                continue
            yield status.st_dev, status.st_ino
