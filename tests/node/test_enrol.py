"""The order of enrolment, whatever state a pod is found in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.node.enrol import Observed, Step, is_enrolled, next_step
from mesh.model.enrolment import REDIRECTION_ENABLED, REDIRECTION_PENDING

OUTSIDE = Observed()
ENROLLED = Observed(served=True, announced=True, attached=True, captured=True, annotation=REDIRECTION_ENABLED)

observed = st.builds(
    Observed,
    served=st.booleans(),
    announced=st.booleans(),
    attached=st.booleans(),
    captured=st.booleans(),
    annotation=st.sampled_from([None, REDIRECTION_ENABLED, REDIRECTION_PENDING]),
    gone=st.booleans(),
    problem=st.sampled_from(["", "ztunnel is not connected"]),
    confessed=st.sampled_from(["", "ztunnel is not connected"]),
    impatient=st.booleans(),
)


def after(step: Step, pod: Observed, ztunnel: bool = True) -> Observed:
    """What is true when a step has been taken, with or without a ztunnel that does its part."""
    match step:
        case Step.ANNOUNCE if ztunnel:
            return replace(pod, served=True, announced=True, problem="", impatient=False)
        case Step.ANNOUNCE:
            return replace(pod, announced=True, problem="ztunnel is not connected", impatient=True)
        case Step.ATTACH | Step.DETACH:
            return replace(pod, attached=step is Step.ATTACH)
        case Step.CAPTURE | Step.WITHDRAW:
            return replace(pod, captured=step is Step.CAPTURE)
        case Step.PUBLISH:
            return replace(pod, annotation=REDIRECTION_ENABLED, confessed="")
        case Step.CONFESS:
            return replace(pod, annotation=REDIRECTION_PENDING, confessed=pod.problem)
        case Step.UNPUBLISH:
            return replace(pod, annotation=None, confessed="")
        case Step.RETIRE:
            return replace(pod, served=False, announced=False)
    raise AssertionError(step)


def walk(wanted: bool, pod: Observed, ztunnel: bool = True, most: int = 12) -> list[tuple[Step, Observed]]:
    taken = []
    while (step := next_step(wanted, pod)) is not None and len(taken) < most:
        pod = after(step, pod, ztunnel)
        taken.append((step, pod))
    return taken


def test_joining() -> None:
    steps = [step for step, _ in walk(True, OUTSIDE)]
    assert steps == [Step.ANNOUNCE, Step.ATTACH, Step.CAPTURE, Step.PUBLISH]


def test_leaving() -> None:
    steps = [step for step, _ in walk(False, ENROLLED)]
    assert steps == [Step.UNPUBLISH, Step.WITHDRAW, Step.DETACH, Step.RETIRE]


def test_nothing_to_do() -> None:
    assert next_step(True, ENROLLED) is None
    assert next_step(False, OUTSIDE) is None


@given(observed, st.booleans())
def test_ends_where_it_is_wanted(pod: Observed, wanted: bool) -> None:
    """From any state, as a crash may leave it, the steps end, and the pod is wholly in or wholly out."""
    steps = walk(wanted, pod)
    end = steps[-1][1] if steps else pod
    assert next_step(wanted, end) is None
    assert (end.attached, end.captured) == (wanted, wanted)
    if wanted:
        assert end.served
        assert end.gone or end.annotation == REDIRECTION_ENABLED
    else:
        assert not end.announced
        assert end.gone or end.annotation is None


@given(observed)
def test_a_captured_pod_is_never_let_out_while_it_is_wanted(pod: Observed) -> None:
    was = is_enrolled(pod)
    for _, now in walk(True, pod):
        assert is_enrolled(now) or not was
        was = is_enrolled(now)


@given(observed)
def test_the_mesh_is_told_only_what_is_true(pod: Observed) -> None:
    for step, now in walk(True, pod):
        assert step is not Step.PUBLISH or (now.served and is_enrolled(now))
    for step, now in walk(False, pod):
        assert step not in (Step.WITHDRAW, Step.DETACH) or now.annotation is None or now.gone


def test_without_ztunnel_a_pod_is_closed_and_says_why() -> None:
    """It is wanted in the mesh and nobody serves it: in the end it is refused, never in plain text."""
    steps = walk(True, OUTSIDE, ztunnel=False)
    end = steps[-1][1]
    assert is_enrolled(end)
    assert (end.annotation, end.confessed) == (REDIRECTION_PENDING, "ztunnel is not connected")
    assert next_step(True, end) is Step.ANNOUNCE  # it goes on trying


@pytest.mark.parametrize("served", [True, False])
def test_a_restart_of_ztunnel_is_not_announced_to_the_mesh(served: bool) -> None:
    """Peers that began to send plain text would be refused: the annotation stays."""
    pod = replace(ENROLLED, served=served, problem="" if served else "ztunnel is not connected", impatient=not served)
    assert all(step is Step.ANNOUNCE for step, _ in walk(True, pod, ztunnel=False))
