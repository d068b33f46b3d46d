"""What the node agent works on: the kernel, and whoever knows where pods are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from mesh.model.address import Ip


class Capture(Protocol):
    """The kernel's side (ebpf.node.Capture)."""

    def enrol(self, netns_cookie: int, addresses: Iterable[Ip] = ()) -> None: ...
    def withdraw(self, netns_cookie: int) -> None: ...
    def enrolled(self) -> frozenset[int]: ...
    def attach_inbound(self, netns_fd: int, name: str) -> None: ...
    def detach_inbound(self, name: str) -> None: ...
    def attached_inbound(self) -> frozenset[str]: ...
    def is_attached_to_living(self, name: str) -> bool: ...


class Networks(Protocol):
    """Where the pods of this node have their network namespaces."""

    def netns(self, uid: str) -> os.PathLike[str] | None:
        """None: there is none, not yet or not any more. Another one than before: the pod's sandbox was made anew."""
