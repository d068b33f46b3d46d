"""Which step of enrolment comes next for a pod: pure, from what is wanted and what is true.

Joining: ztunnel serves the pod -> what comes in is steered to it -> what goes out is captured -> the mesh is told.
Leaving is the reverse: the mesh is told -> nothing is captured any more -> ztunnel lets go (and lingers, for peers that
have not heard yet). Connections that stand keep the path that they took, because capture is looked at only when a
connection begins.

One step at a time, each looking at what is really there, is also how an agent that was restarted goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mesh.model.enrolment import REDIRECTION_ENABLED, REDIRECTION_PENDING


class Step(Enum):
    ANNOUNCE = "ztunnel is to serve the pod"
    ATTACH = "steer what comes in"
    CAPTURE = "capture what goes out"
    PUBLISH = f"annotate the pod: {REDIRECTION_ENABLED}"
    CONFESS = f"annotate the pod: {REDIRECTION_PENDING}, and why"
    UNPUBLISH = "remove the annotation"
    WITHDRAW = "capture no more of what goes out"
    DETACH = "steer no more of what comes in"
    RETIRE = "ztunnel is to let the pod go"


@dataclass(frozen=True, slots=True)
class Observed:
    """What is true of one pod."""

    served: bool = False  # the ztunnel that runs now has said so
    announced: bool = False  # some ztunnel was asked to serve it, and was not asked to let it go
    attached: bool = False
    captured: bool = False
    annotation: str | None = None
    gone: bool = False  # its object is deleted, it still runs: nobody reads its annotations any more
    problem: str = ""  # why ztunnel does not serve it
    confessed: str = ""  # the problem that the pod's annotations tell of
    impatient: bool = False  # it has had this problem for too long to go on in plain text


def next_step(wanted: bool, observed: Observed) -> Step | None:
    """None: all is as it should be."""
    return _joining(observed) if wanted else _leaving(observed)


def is_enrolled(observed: Observed) -> bool:
    """Whether no packet of the pod can leave in clear or pass ztunnel by."""
    return observed.attached and observed.captured


def _joining(pod: Observed) -> Step | None:
    if not pod.served:
        return _not_served(pod)
    if not pod.attached:
        return Step.ATTACH
    if not pod.captured:
        return Step.CAPTURE
    return Step.PUBLISH if pod.annotation != REDIRECTION_ENABLED and not pod.gone else None


def _not_served(pod: Observed) -> Step:
    """A pod that was enrolled stays captured, so it is refused; so is one that ztunnel has not taken for too long:
    plain text is not what its owner has asked for."""
    if pod.impatient and not pod.attached:
        return Step.ATTACH
    if pod.impatient and not pod.captured:
        return Step.CAPTURE
    was_enrolled = pod.annotation == REDIRECTION_ENABLED and is_enrolled(pod)
    if pod.problem and pod.confessed != pod.problem and not was_enrolled and not pod.gone:
        return Step.CONFESS
    return Step.ANNOUNCE


def _leaving(pod: Observed) -> Step | None:
    if pod.annotation is not None and not pod.gone:
        return Step.UNPUBLISH
    if pod.captured:
        return Step.WITHDRAW
    if pod.attached:
        return Step.DETACH
    return Step.RETIRE if pod.announced else None
