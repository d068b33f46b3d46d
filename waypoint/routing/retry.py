"""Whether a request is sent once more, and when.

Never again what may have been carried out: a request that reached the app is repeated only when its method is
idempotent (RFC 9110 section 9.2.2). What certainly did not reach it (no connection, a refused stream) may always be.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from mesh.model.routing import Retry, Timeouts

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# Without a policy only what never reached the app is repeated, this often: enough to step over a pod that is going
# down and the one that follows it in a rollout. Istio's default is 2, too.
ATTEMPTS_UNSENT = 2
BACKOFF = 0.025  # seconds, when the policy gives none; Envoy's base
STEEPEST = 10  # the longest delay in units of the least; Envoy's


class Failure(Enum):
    """How an attempt ended without a response."""

    UNSENT = "the request was not sent"  # or the peer has said that it was not processed (REFUSED_STREAM, GOAWAY)
    BROKEN = "the connection broke before a response"
    TIMED_OUT = "no response within the time of one attempt"


Outcome = Failure | int  # an int is the status of the response


class Again(Struct, frozen=True):
    """After `delay` seconds."""

    delay: float


class Stop(Struct, frozen=True):
    """Give the client what there is; why it is not tried again."""

    reason: str


def decide(
    policy: Retry | None,
    repeated: int,
    outcome: Outcome,
    method: str,
    chance: float,
    *,
    replayable: bool = True,
    left: float | None = None,
) -> Again | Stop:
    """`repeated` is how often it was sent again so far, `left` the seconds until the request's deadline (None: no end).

    `replayable`: the body is still at hand in full, or none of it was read. `chance` is in [0, 1).
    """
    reason = _why_not(policy, outcome, method)
    if reason is not None:
        return Stop(reason)
    if not replayable:
        return Stop("part of the request's body is gone")
    most = max(policy.attempts if policy else 0, ATTEMPTS_UNSENT if outcome is Failure.UNSENT else 0)
    if repeated >= most:
        return Stop(f"it was tried {repeated + 1} times")
    delay = backoff(policy.backoff if policy else 0.0, repeated, chance)
    if left is not None and delay >= left:
        return Stop("the request's time is over before another attempt")
    return Again(delay)


def _why_not(policy: Retry | None, outcome: Outcome, method: str) -> str | None:
    if outcome is Failure.UNSENT:
        return None
    if policy is None:
        return "the route asks for no retries"
    if isinstance(outcome, int) and outcome not in policy.codes:
        return f"the route does not retry status {outcome}"
    if method not in IDEMPOTENT:
        return f"{method} may have been carried out"
    return None


def backoff(least: float, repeated: int, chance: float) -> float:
    """Seconds: never less than the policy says, doubling in width, spread so that clients do not come back at once."""
    base = least or BACKOFF
    widest = min(2.0 ** min(repeated + 1, 10), STEEPEST)
    return base * (1 + chance * (widest - 1))


def time_of_attempt(timeouts: Timeouts, elapsed: float) -> float | None:
    """Seconds that an attempt may take when the request is `elapsed` seconds old; None without a limit."""
    limits = []
    if timeouts.request > 0:
        limits.append(max(0.0, timeouts.request - elapsed))
    if timeouts.backend_request > 0:
        limits.append(timeouts.backend_request)
    return min(limits, default=None)
