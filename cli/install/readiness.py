"""How far an installation has come, and what keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.store.interface import Object


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one DaemonSet or Deployment: how many of its pods are of its newest kind and ready."""

    name: str
    ready: int
    wanted: int
    observed: bool  # its controller has seen the newest kind

    @property
    def done(self) -> bool:
        return self.observed and self.ready >= self.wanted


def of_daemon_set(found: Object) -> Progress:
    status = found.get("status", {})
    ready = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
    return Progress("nodes", ready, status.get("desiredNumberScheduled", 0), _observed(found))


def of_deployment(found: Object) -> Progress:
    status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
    ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
    old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    return Progress("controller", ready if old <= 0 else min(ready, wanted - 1), wanted, _observed(found))


def _observed(found: Object) -> bool:
    return bool(found.get("status", {}).get("observedGeneration", 0) >= found["metadata"].get("generation", 0))


def reasons(pods: Iterable[Object]) -> Sequence[str]:
    """One line for each pod that is not ready: which container, and why, in Kubernetes' words."""
    return [reason for pod in pods for reason in _of_pod(pod)]


def _of_pod(pod: Object) -> Sequence[str]:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    where = f"{name} on {pod['spec']['nodeName']}" if pod["spec"].get("nodeName") else name
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    if conditions.get("Ready", {}).get("status") == "True" or status.get("phase") == "Succeeded":
        return []
    unscheduled = conditions.get("PodScheduled", {})
    if unscheduled.get("status") == "False":
        return [f"{where}: no node for it: {unscheduled.get('message') or unscheduled.get('reason')}"]
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waiting = [f"{where}: {each['name']} {why}" for each in statuses if (why := _of_container(each))]
    return waiting or [f"{where}: {status.get('reason') or status.get('phase') or 'unknown'}"]


def _of_container(status: Mapping[str, Any]) -> str:
    state = status.get("state", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated") or {}
    last = f", its last words: {_one_line(ended['message'])}" if ended.get("message") else ""
    if waiting := state.get("waiting"):
        if waiting.get("reason") == "PodInitializing" and not last:
            return ""  # another container is what it waits for
        return f"waits: {waiting.get('reason', 'unknown')} {_one_line(waiting.get('message', ''))}".rstrip() + last
    if "running" in state and not status.get("ready", False):
        return f"runs and is not ready{last}"
    if ended.get("exitCode"):
        return f"ended with exit code {ended['exitCode']}{last}"
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
