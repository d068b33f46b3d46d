"""From the routes of a port to the candidates of its index: every match of every rule, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mesh.model.routing import Route
from waypoint.routing.matching import Candidate, grpc_candidate, http_candidate, prefix_of
from waypoint.routing.regex import BadRegex
from waypoint.routing.rules import Action

Problem = Callable[[str], None]


def age(route: Route) -> tuple[float, str]:
    """Of equal matches the oldest route wins, then the first by "<namespace>/<name>"."""
    return route.created, f"{route.namespace}/{route.name}"


def http_candidates(routes: list[Route], port: int, problem: Problem) -> Iterator[Candidate[Action]]:
    """A match whose expression cannot be compiled is left out and reported, as Gateway API lets a rule be dropped."""
    for route in routes:
        for number, rule in enumerate(route.http or (), 1):
            name, actions = rule.name or str(number), dict[str | None, Action]()
            for place, match in enumerate(rule.matches):
                prefix = prefix_of(match)
                if prefix not in actions:
                    actions[prefix] = Action(age(route)[1], name, rule, prefix, port)
                try:
                    yield http_candidate(match, (*age(route), number, place), actions[prefix])
                except BadRegex as error:
                    problem(f"route {age(route)[1]} rule {name}: {error}")


def grpc_candidates(routes: list[Route], port: int, problem: Problem) -> Iterator[Candidate[Action]]:
    """As `http_candidates`, for GRPCRoutes."""
    for route in routes:
        for number, rule in enumerate(route.grpc or (), 1):
            name = rule.name or str(number)
            action = Action(age(route)[1], name, rule, None, port)
            for place, match in enumerate(rule.matches):
                try:
                    yield grpc_candidate(match, (*age(route), number, place), action)
                except BadRegex as error:
                    problem(f"route {age(route)[1]} rule {name}: {error}")
