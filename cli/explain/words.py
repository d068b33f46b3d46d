"""An explanation in plain sentences, and as a document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cli.explain.answer import Considered, Explanation, Step, Verdict, Way

MARKS = {Verdict.ALLOWED: "allowed", Verdict.DENIED: "DENIED", Verdict.UNKNOWN: "cannot tell"}


def sentences(found: Explanation) -> Iterator[str]:
    asked = found.asked
    yield f"{asked.source} to {asked.destination} ({asked.address})"
    yield ""
    yield from _steps(found.common)
    groups = _alike(found.ways)
    for number, ways in enumerate(groups, 1):
        yield ""
        if len(groups) > 1:
            yield f"Way {number} of {len(groups)}{_share(ways)}"
        yield from _steps(ways[0].steps)
        if len(ways) > 1:
            yield f"  ... and {len(ways) - 1} more endpoint{'s' if len(ways) > 2 else ''} with the same outcome"
        if len(groups) > 1:
            yield f"  {MARKS[ways[0].verdict]}: {ways[0].reason}"
    if found.left_out:
        yield f"\n{found.left_out} more ways were not looked at."
    yield ""
    yield f"{MARKS[found.verdict]}: {found.reason}"


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        yield f"  {step.topic:<10} {step.place}: {step.text}"
        for each in step.policies:
            yield f"  {'':<10}   {_policy(each)}"


def _policy(each: Considered) -> str:
    return f"{each.action} {each.policy} {'matches' if each.matches else 'does not match'}: {each.because}"


def _alike(ways: Sequence[Way]) -> list[list[Way]]:
    """Ways that differ in their endpoint only: the same verdict for the same reason, past the same topics."""
    groups: dict[Any, list[Way]] = {}
    for way in ways:
        routes = tuple(step.text for step in way.steps if step.topic == "route")
        key = way.verdict, way.reason, routes, tuple(step.topic for step in way.steps)
        groups.setdefault(key, []).append(way)
    return list(groups.values())


def _share(ways: Sequence[Way]) -> str:
    """What the route gives it; ways of one share are endpoints of one backend."""
    share = ways[0].share
    return f" (about {share:.0%} of the requests)" if share < 1.0 else ""


def as_document(found: Explanation) -> dict[str, Any]:
    asked = asdict(found.asked)
    return {
        "source": asked["source"],
        "destination": asked["destination"],
        "address": str(found.asked.address) if found.asked.address else None,
        "request": asked["request"] | {"headers": [list(each) for each in found.asked.request.headers]},
        "verdict": found.verdict.value,
        "reason": found.reason,
        "common": [asdict(step) for step in found.common],
        "ways": [_way(way) for way in found.ways],
        "leftOut": found.left_out,
    }


def _way(way: Way) -> dict[str, Any]:
    steps = [asdict(step) for step in way.steps]
    return {"verdict": way.verdict.value, "reason": way.reason, "share": way.share, "steps": steps}
