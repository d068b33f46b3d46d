"""What a rule does with a request: answers it, or chooses a backend and changes what goes there and comes back."""

from __future__ import annotations

from mesh.model.routing import Backend, GrpcRule, HttpRule, Retry, Timeouts
from waypoint.routing.filters import CompiledFilters, change_request
from waypoint.routing.replies import local_reply
from waypoint.routing.request import Destination, Forward, HeaderEdit, Mirrored, Reply, Request
from waypoint.routing.weights import Weights, draw_share


class CompiledBackend:
    """A backendRef, ready for requests."""

    __slots__ = ("error", "filters", "plain", "to")

    def __init__(self, backend: Backend, prefix: str | None) -> None:
        self.to = Destination(backend.service, backend.port, backend.protocol)
        self.filters = CompiledFilters(backend.filters, prefix)
        self.error = backend.error or self.filters.error
        self.plain = self.filters.plain


class Action:
    """A rule under one of its matches. `name` is the rule's own, or its number from 1."""

    __slots__ = ("_backends", "_filters", "_port", "_retry", "_timeouts", "_weights", "name", "route")

    def __init__(self, route: str, name: str, rule: HttpRule | GrpcRule, prefix: str | None, port: int) -> None:
        """`port` is the one that clients dial: redirects keep it."""
        self.route, self.name, self._port = route, name, port
        self._filters = CompiledFilters(rule.filters, prefix)
        self._backends = tuple(CompiledBackend(backend, prefix) for backend in rule.backends)
        self._weights = Weights([backend.weight for backend in rule.backends])
        self._timeouts: Timeouts = rule.timeouts if isinstance(rule, HttpRule) else Timeouts()
        self._retry: Retry | None = rule.retry if isinstance(rule, HttpRule) else None

    def decide(self, request: Request, chance: float) -> Forward | Reply:
        """An error of the rule or of the backend drawn is a 500: no other backend takes its share."""
        filters = self._filters
        if filters.error:
            return self._refused(request, filters.error)
        answered = self._answered(request, filters)
        if answered is not None:
            return answered
        drawn = self._weights.draw(chance)
        if drawn is None:
            return self._refused(request, "the rule has no backend with a weight above 0")
        index, rest = drawn
        backend = self._backends[index]
        if backend.plain and filters.plain and not backend.error:
            return Forward(backend.to, request, (), (), self._timeouts, self._retry, self.route, self.name)
        if backend.error:
            return self._refused(request, backend.error)
        answered = self._answered(request, backend.filters)
        if answered is not None:
            return answered
        return self._forward(request, backend, rest)

    def _answered(self, request: Request, filters: CompiledFilters) -> Reply | None:
        """What the filters answer themselves: preflights and redirects."""
        if filters.cors is not None:
            preflight = filters.cors.preflight(request)
            if preflight is not None:
                return Reply(preflight.status, preflight.reason, preflight.headers, None, self.route, self.name)
        redirect = filters.redirect
        if redirect is None:
            return None
        headers: tuple[tuple[str, str], ...] = (("location", redirect.location(request, self._port)),)
        for edit in _edits(request, filters):
            headers = edit(headers)
        return Reply(redirect.status, "", headers, None, self.route, self.name)

    def _forward(self, request: Request, backend: CompiledBackend, chance: float) -> Forward:
        rule, own = self._filters, backend.filters
        mirrors: list[Mirrored] = []
        for filters in (rule, own) if rule.mirrors or own.mirrors else ():
            copied = change_request(request, rule, own if filters is own else None)
            for to, share in filters.mirrors:
                taken, chance = draw_share(chance, share)
                if taken:
                    mirrors.append(Mirrored(to, copied))
        return Forward(
            backend.to,
            change_request(request, rule, own),
            (*_edits(request, rule), *_edits(request, own)),
            tuple(mirrors),
            self._timeouts,
            self._retry,
            self.route,
            self.name,
        )

    def _refused(self, request: Request, reason: str) -> Reply:
        return local_reply(request, 500, reason, route=self.route, rule=self.name)


def _edits(request: Request, filters: CompiledFilters) -> tuple[HeaderEdit, ...]:
    """Changes of the response; CORS last, so that nothing overrides what it grants."""
    answer = () if filters.answer is None else (filters.answer,)
    if filters.cors is None:
        return answer
    granted = filters.cors.edit(request)
    return answer if granted is None else (*answer, granted)
