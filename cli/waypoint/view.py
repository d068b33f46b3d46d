"""What is shown of waypoints, and who is bound to them by labels: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from controller.compile import gateways
from controller.compile.binding import USE_WAYPOINT, named
from controller.store import kinds
from controller.store.gateway_shapes import Gateway, GatewayClass
from controller.store.interface import Key, Object

REVISION = "istio.io/rev"
DEFAULT_REVISION = "default"
LIST_COLUMNS = ("NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED", "SERVICE ACCOUNT")
STATUS_COLUMNS = ("NAMESPACE", "NAME", "STATUS", "TYPE", "REASON", "MESSAGE")
PROGRAMMED = "Programmed"

Classes = Mapping[Key, GatewayClass]


@dataclass(frozen=True, slots=True)
class Shown:
    """A waypoint as `list` shows it. `account` is the service account that it is for; "" for a shared one."""

    namespace: str
    name: str
    revision: str
    traffic: str
    programmed: str  # True, False or Unknown
    account: str


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition that tells how a waypoint fares: Programmed, or Accepted when that is what is wrong."""

    namespace: str
    name: str
    status: str
    type: str
    reason: str
    message: str

    @property
    def programmed(self) -> bool:
        return (self.type, self.status) == (PROGRAMMED, "True")

    def row(self) -> tuple[str, ...]:
        return tuple(asdict(self).values())


def classes(objects: Iterable[Object]) -> Classes:
    return {kinds.key_of(each): msgspec.convert(each, GatewayClass) for each in objects}


def waypoints(objects: Iterable[Object], known: Classes) -> Sequence[Object]:
    """Those Gateways that are waypoints of ours, in order of name."""
    found = [each for each in objects if gateways.is_ours(str(each["spec"].get("gatewayClassName", "")), known)]
    return sorted(found, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))


def shown(obj: Object, known: Classes) -> Shown:
    gateway = msgspec.convert(obj, Gateway)
    waypoint = gateways.read(gateway, known)
    assert waypoint is not None  # it is one of ours
    revision = gateway.metadata.labels.get(REVISION, DEFAULT_REVISION)
    programmed = _conditions(obj).get(PROGRAMMED, {}).get("status", "Unknown")
    return Shown(waypoint.namespace, waypoint.name, revision, str(waypoint.takes), programmed, waypoint.account)


def row(each: Shown, all_namespaces: bool) -> tuple[str, ...]:
    cells = (each.name, each.revision, each.traffic, each.programmed, each.account)
    return (each.namespace, *cells) if all_namespaces else cells


def condition(obj: Object) -> Condition:
    """What a controller said of an earlier state of the object does not count."""
    metadata, found = obj["metadata"], _conditions(obj)
    name = metadata["namespace"], metadata["name"]
    accepted, programmed = found.get("Accepted"), found.get(PROGRAMMED)
    if accepted is not None and accepted["status"] != "True":
        return Condition(*name, *_told(accepted))
    if programmed is None:
        return Condition(*name, "Unknown", PROGRAMMED, "Pending", "no controller has looked at it yet")
    return Condition(*name, *_told(programmed))


def _told(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return str(found["status"]), str(found["type"]), str(found.get("reason", "")), str(found.get("message", ""))


def _conditions(obj: Object) -> dict[str, Mapping[str, Any]]:
    generation = obj["metadata"].get("generation", 0)
    found = (obj.get("status") or {}).get("conditions") or ()
    return {each["type"]: each for each in found if each.get("observedGeneration", generation) >= generation}


def users(objects: Iterable[Object], gone: set[Key]) -> Iterator[Key]:
    """The namespaces, services and pods whose label names one of these waypoints."""
    for obj in objects:
        metadata = obj["metadata"]
        labels = metadata.get("labels") or {}
        if USE_WAYPOINT in labels and named(labels, metadata.get("namespace") or metadata["name"]) in gone:
            yield kinds.key_of(obj)
