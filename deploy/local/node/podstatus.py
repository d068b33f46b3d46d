"""A pod's status from what is known about its containers: pure, with the kubelet's rules and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.local.addresses import Pair


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    started_at: str


@dataclass(frozen=True, slots=True)
class Terminated:
    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    message: str = ""


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class Container:
    """What is true of one container now. Times are RFC 3339 text."""

    name: str
    image: str
    id: str = ""  # of its process, the last one if it has ended
    state: State = Waiting("ContainerCreating")
    last: Terminated | None = None
    restarts: int = 0
    passes_probe: bool = True

    @property
    def ready(self) -> bool:
        return isinstance(self.state, Running) and self.passes_probe


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of a pod now. `blocked`: why its containers may not start yet."""

    node_address: Pair
    started_at: str
    init: tuple[Container, ...]
    containers: tuple[Container, ...]
    addresses: Pair | None = None
    blocked: Waiting | None = None


def restarts(policy: str, exit_code: int) -> bool:
    """Whether a container that ended is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def status(pod: Mapping[str, Any], facts: Facts, now: str) -> dict[str, Any]:
    """The whole status; a condition that is as it was keeps its transition time."""
    initialised = all(isinstance(each.state, Terminated) and each.state.exit_code == 0 for each in facts.init)
    phase = _phase(pod["spec"].get("restartPolicy", "Always"), facts)
    ready = phase == "Running" and bool(facts.containers) and all(each.ready for each in facts.containers)
    why = _why_not_ready(phase, facts)
    conditions = [
        _condition("PodScheduled", True),
        _condition("Initialized", initialised, reason="ContainersNotInitialized"),
        _condition("ContainersReady", ready, *why),
        _condition("Ready", ready, *why),
    ]
    known = {each["type"]: each for each in pod.get("status", {}).get("conditions", ())}
    result: dict[str, Any] = {
        "phase": phase,
        "conditions": [_since(each, known.get(each["type"]), now) for each in conditions],
        "hostIP": facts.node_address.v4,
        "hostIPs": [{"ip": ip} for ip in facts.node_address.both()],
        "startTime": facts.started_at,
        "containerStatuses": [_container(each) for each in facts.containers],
    }
    if facts.init:
        result["initContainerStatuses"] = [_container(each) for each in facts.init]
    if facts.addresses:
        result |= {"podIP": facts.addresses.v4, "podIPs": [{"ip": ip} for ip in facts.addresses.both()]}
    return result


def _phase(policy: str, facts: Facts) -> str:
    if any(_failed_for_good(policy, each) for each in facts.init):
        return "Failed"
    states = [each.state for each in facts.containers]
    ends = [state for state in states if isinstance(state, Terminated)]
    if states and len(ends) == len(states) and not any(restarts(policy, end.exit_code) for end in ends):
        return "Failed" if any(end.exit_code for end in ends) else "Succeeded"
    begun = any(not isinstance(each.state, Waiting) or each.last for each in facts.containers)
    return "Running" if begun else "Pending"


def _failed_for_good(policy: str, init: Container) -> bool:
    return policy == "Never" and isinstance(init.state, Terminated) and init.state.exit_code != 0


def _why_not_ready(phase: str, facts: Facts) -> tuple[str, str]:
    if phase in ("Succeeded", "Failed"):
        return "PodCompleted" if phase == "Succeeded" else "PodFailed", ""
    if facts.blocked:
        return facts.blocked.reason, facts.blocked.message
    waiting = [each for each in (*facts.init, *facts.containers) if isinstance(each.state, Waiting)]
    told = [each.state.message for each in waiting if isinstance(each.state, Waiting) and each.state.message]
    return "ContainersNotReady", "; ".join(dict.fromkeys(told)) or _unready(facts.containers)


def _unready(containers: Sequence[Container]) -> str:
    return f"containers with unready status: [{' '.join(each.name for each in containers if not each.ready)}]"


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    if holds:
        return {"type": kind, "status": "True"}
    return {"type": kind, "status": "False", "reason": reason, **({"message": message} if message else {})}


def _since(condition: dict[str, Any], before: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    same = before is not None and before.get("status") == condition["status"]
    return condition | {"lastTransitionTime": before.get("lastTransitionTime", now) if same and before else now}


def _container(container: Container) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        **({"containerID": container.id} if container.id else {}),
        "ready": container.ready,
        "started": isinstance(container.state, Running),
        "restartCount": container.restarts,
        "state": _state(container.state),
        "lastState": _state(container.last) if container.last else {},
    }


def _state(state: State) -> dict[str, Any]:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        case Running(started_at):
            return {"running": {"startedAt": started_at}}
        case Terminated(exit_code, reason, started_at, finished_at, message):
            ended = {"exitCode": exit_code, "reason": reason, "startedAt": started_at, "finishedAt": finished_at}
            return {"terminated": {**ended, **({"message": message} if message else {})}}
