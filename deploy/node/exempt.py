"""ztunnel's cgroup is told to the kernel before ztunnel is told of any pod, so that what it dials is not captured.

Its container, and with it its cgroup, is another one after each restart; which one, the process at the other end of its
ZDS connection says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ebpf.cgroups import NoCgroup2, cgroup_id, cgroup_of

log = logging.getLogger("exempt")


class NotExempt(Exception):
    """The cgroup of who connected cannot be found. One sentence."""


class Exempting(Protocol):
    """The part of ebpf.node.Capture that is used here."""

    def exempt(self, cgroup_id: int) -> None: ...
    def unexempt(self, cgroup_id: int) -> None: ...
    def exempted(self) -> frozenset[int]: ...


class Exemption:
    """`root` is where the whole of cgroup v2 is mounted."""

    def __init__(self, capture: Exempting, root: Path) -> None:
        self._capture, self._root = capture, root

    def admit(self, process: int) -> None:
        """A ztunnel has connected. The caller sees to it that the process has not ended since. Raises NotExempt."""
        if not process:
            raise NotExempt("the process of ztunnel is not visible here: the node agent needs the host's process ids")
        try:
            path = cgroup_of(process)
            found = cgroup_id(self._root / path.lstrip("/"))
            self._capture.exempt(found)
        except (OSError, NoCgroup2) as error:
            raise NotExempt(f"the cgroup of ztunnel (process {process}) cannot be exempted: {error}") from error
        log.info("ztunnel's cgroup is %s", path)
        self._forget_ended(found)

    def _forget_ended(self, current: int) -> None:
        """Those of earlier ztunnels whose cgroup is no more. One that still drains needs its own."""
        for each in self._capture.exempted() - {current} - frozenset(_identities(self._root)):
            self._capture.unexempt(each)


def _identities(root: Path) -> Iterator[int]:
    for directory, _, _ in os.walk(root):
        try:
            yield cgroup_id(Path(directory))
        except OSError:
            continue
