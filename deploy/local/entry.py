"""What is to be executed, and where: a value that goes from whoever decides to the process that becomes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


class CannotRun(Exception):
    """A container that is not started, with the kubelet's reason (one word) and a sentence that names the field."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """What `enter.py` needs to become the process of a container, or of a part of the mesh."""

    command: list[str]
    environment: dict[str, str]
    working_directory: str
    cgroup: str
    netns: str = ""  # "": stay where we are
    hostname: str = ""  # "": no mounts and no name of its own
    binds: list[tuple[str, str]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    user: int | None = None
    group: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
