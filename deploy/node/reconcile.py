"""From what labels want and what is true to the next step. Pure; the order of the steps is what keeps it closed.

Joining: ztunnel serves the pod, then inbound is captured, then outbound, then the annotation says so and the controller
tells everybody to use tunnels. Leaving goes the other way round: the annotation first, so that peers stop using tunnels
while they still work. A step that cannot be done leaves the ones before it: captured and refused, never half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mesh.model.enrolment import REDIRECTION_ENABLED, REDIRECTION_PENDING


class Step(Enum):
    SERVE = "ztunnel opens the pod's listeners"
    CAPTURE_INBOUND = "new inbound connections go to ztunnel"
    CAPTURE_OUTBOUND = "new outbound connections go to ztunnel"
    ANNOUNCE = "the annotation says enabled"
    ANNOUNCE_PENDING = "the annotation says pending"
    RETRACT = "the annotation goes"
    RELEASE_OUTBOUND = "outbound connections go their own way"
    RELEASE_INBOUND = "inbound connections go to the app"
    UNSERVE = "ztunnel lets go of the pod"


@dataclass(frozen=True, slots=True)
class Desired:
    """`wanted`: the labels want the pod captured. `present`: the pod exists and has a network namespace."""

    wanted: bool
    present: bool


@dataclass(frozen=True, slots=True)
class Observed:
    served: bool
    inbound: bool
    outbound: bool
    annotation: str | None


def next_step(desired: Desired, observed: Observed) -> Step | None:
    """None: all is as wanted."""
    if not desired.present:
        return _forget(observed)
    return _join(observed) if desired.wanted else _leave(observed)


def _join(observed: Observed) -> Step | None:
    if not observed.served:
        return Step.SERVE
    if not observed.inbound:
        return Step.CAPTURE_INBOUND
    if not observed.outbound:
        return Step.CAPTURE_OUTBOUND
    return None if observed.annotation == REDIRECTION_ENABLED else Step.ANNOUNCE


def _leave(observed: Observed) -> Step | None:
    if observed.annotation is not None:
        return Step.RETRACT
    if observed.outbound:
        return Step.RELEASE_OUTBOUND
    if observed.inbound:
        return Step.RELEASE_INBOUND
    return Step.UNSERVE if observed.served else None


def _forget(observed: Observed) -> Step | None:
    """The pod is gone, and its annotation with it."""
    if observed.outbound:
        return Step.RELEASE_OUTBOUND
    if observed.inbound:
        return Step.RELEASE_INBOUND
    return Step.UNSERVE if observed.served else None


def says_pending(failed: Step, observed: Observed) -> bool:
    """Whether a pod whose enrolment failed at `failed` is to be marked as pending."""
    joining = failed in (Step.SERVE, Step.CAPTURE_INBOUND, Step.CAPTURE_OUTBOUND)
    return joining and observed.annotation is None


__all__ = ["REDIRECTION_PENDING", "Desired", "Observed", "Step", "next_step", "says_pending"]
