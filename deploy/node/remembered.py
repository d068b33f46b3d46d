"""What the node agent remembers of a pod between two looks at it, and what it sees of the kernel at each."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from controller.store.interface import Key, Object
from mesh.model.address import Ip


@dataclass(slots=True)
class Pod:
    """One that the agent looks after. Its task takes it to where it is wanted."""

    object: Object
    netns: os.PathLike[str]
    cookie: int
    addresses: tuple[Ip, ...] = ()  # told before the object has them
    announced: bool = False
    problem: str = ""
    problem_since: float = 0.0
    captured: bool = False  # by this agent, which has not let it go since
    leaving: bool = False  # it has ended: it leaves the mesh whatever its labels say
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # it is where it is wanted
    disturbed: asyncio.Event = field(default_factory=asyncio.Event)
    stepped: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def key(self) -> Key:
        return Key("Pod", self.object["metadata"]["namespace"], self.object["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel has: pods whose inbound connections are steered, by uid, and captured ones, by cookie."""

    attached: frozenset[str]
    captured: frozenset[int]
