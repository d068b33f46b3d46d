"""Retries: never again what may have been carried out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.routing import Retry, Timeouts
from waypoint.routing.retry import (
    ATTEMPTS_UNSENT,
    BACKOFF,
    IDEMPOTENT,
    STEEPEST,
    Again,
    Failure,
    Outcome,
    Stop,
    backoff,
    decide,
    time_of_attempt,
)

THREE = Retry((500,), 3)


def sent(policy: Retry | None, outcomes: list[Outcome], method: str = "GET") -> tuple[int, Outcome]:
    """How often a request is sent when the attempts end like this, and the outcome that the client gets."""
    for repeated, outcome in enumerate(outcomes):
        if isinstance(decide(policy, repeated, outcome, method, 0.5), Stop):
            return repeated + 1, outcome
    raise AssertionError("it would go on")


@pytest.mark.parametrize(
    ("policy", "outcomes", "expected"),
    [
        (THREE, [500, 500, 200], (3, 200)),
        (THREE, [500, 500, 500, 500, 200], (4, 500)),
        (THREE, [503, 200], (1, 503)),
        (Retry((500, 502, 503, 504), 2), [504, 200], (2, 200)),
        (Retry((500, 502, 503, 504), 2), [502, 503, 502, 200], (3, 502)),
        (Retry((500,), 2), [Failure.TIMED_OUT, 200], (2, 200)),
        (Retry((500,), 2), [Failure.TIMED_OUT] * 3, (3, Failure.TIMED_OUT)),
        (THREE, [Failure.BROKEN, Failure.BROKEN, 200], (3, 200)),
        (THREE, [Failure.BROKEN] * 4, (4, Failure.BROKEN)),
        (None, [Failure.BROKEN, 200], (1, Failure.BROKEN)),
        (None, [503, 200], (1, 503)),
        (None, [Failure.UNSENT, Failure.UNSENT, 200], (3, 200)),
        (None, [Failure.UNSENT] * 3, (3, Failure.UNSENT)),
        (Retry((500,), 0), [500, 200], (1, 500)),
    ],
)
def test_how_often_a_request_is_sent(policy: Retry | None, outcomes: list[Outcome], expected: object) -> None:
    assert sent(policy, outcomes) == expected


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "get", "LOCK"])
def test_what_may_have_been_carried_out_is_not_repeated(method: str) -> None:
    for outcome in (500, Failure.BROKEN, Failure.TIMED_OUT):
        assert isinstance(decide(THREE, 0, outcome, method, 0.5), Stop)
    assert isinstance(decide(THREE, 0, Failure.UNSENT, method, 0.5), Again)


OUTCOMES = st.one_of(st.sampled_from(Failure), st.integers(100, 599))
POLICIES = st.one_of(
    st.none(), st.builds(Retry, st.lists(st.integers(400, 599)).map(tuple), st.integers(0, 20), st.floats(0, 10))
)


@settings(deadline=None)
@given(POLICIES, st.integers(0, 30), OUTCOMES, st.text(max_size=8), st.floats(0, 1, exclude_max=True), st.booleans())
def test_whatever_happens(
    policy: Retry | None, repeated: int, outcome: Outcome, method: str, chance: float, replayable: bool
) -> None:
    decision = decide(policy, repeated, outcome, method, chance, replayable=replayable)
    if isinstance(decision, Again):
        assert replayable
        assert method in IDEMPOTENT or outcome is Failure.UNSENT
        assert repeated < max(policy.attempts if policy else 0, ATTEMPTS_UNSENT)
        assert decision.delay >= (policy.backoff if policy else 0)
    else:
        assert decision.reason


@settings(deadline=None)
@given(st.floats(0, 60), st.integers(0, 2000), st.floats(0, 1, exclude_max=True))
def test_backoff_has_bounds(least: float, repeated: int, chance: float) -> None:
    base = least or BACKOFF
    assert base <= backoff(least, repeated, chance) <= base * STEEPEST


def test_no_attempt_begins_after_the_deadline() -> None:
    assert isinstance(decide(Retry((500,), 3, 0.1), 0, 500, "GET", 0.0, left=0.1), Stop)
    assert decide(Retry((500,), 3, 0.1), 0, 500, "GET", 0.0, left=0.2) == Again(0.1)


def test_a_body_that_is_gone_is_not_sent_again() -> None:
    assert isinstance(decide(THREE, 0, Failure.UNSENT, "PUT", 0.5, replayable=False), Stop)


@pytest.mark.parametrize(
    ("timeouts", "elapsed", "expected"),
    [
        (Timeouts(), 5, None),
        (Timeouts(request=0.5), 0.2, 0.3),
        (Timeouts(request=0.5), 0.7, 0.0),
        (Timeouts(backend_request=0.2), 10, 0.2),
        (Timeouts(0.4, 0.2), 0.1, 0.2),
        (Timeouts(0.4, 0.2), 0.3, 0.1),
    ],
)
def test_the_time_of_an_attempt(timeouts: Timeouts, elapsed: float, expected: float | None) -> None:
    left = time_of_attempt(timeouts, elapsed)
    assert left == (expected if expected is None else pytest.approx(expected))
