"""How long established connections may go on once a process was told to stop (ztunnel: src/config.rs, drain.rs)."""

from __future__ import annotations

DEFAULT_DEADLINE = 5.0  # when nobody said how long the process has


def drain_deadline(termination_deadline: float | None, grace_period: float | None) -> float:
    """Seconds. Given outright, or what the orchestrator grants less a reserve for the exit itself."""
    if termination_deadline is not None:
        return termination_deadline
    if grace_period is None:
        return DEFAULT_DEADLINE
    reserve = 5.0 if grace_period > 10 else 1.0
    return max(1.0, grace_period - reserve)
