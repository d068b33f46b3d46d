"""HTTPCORSFilter: which origins may read responses (Gateway API; Fetch standard, section 3.2).

The waypoint answers preflights itself. Of an allowed origin's requests it sets the headers of the response, in place of
the app's own; other requests go on untouched, and the browser keeps their responses from the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mesh.model.routing import Cors
from waypoint.routing.regex import compile_regex
from waypoint.routing.request import HeaderEdit, Headers, Reply, Request

ALLOW_ORIGIN = "access-control-allow-origin"
ALLOW_CREDENTIALS = "access-control-allow-credentials"
EXPOSE = "access-control-expose-headers"
_OURS = frozenset({ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE})
# A "*" within an origin stands for any number of labels, with the port when it is the end; an origin has no path.
_WILD = r"[^/?#@]+"


class CompiledCors:
    """One filter, ready for requests. Raises BadRegex for an origin that cannot be compiled."""

    def __init__(self, cors: Cors) -> None:
        self._allows = _any_origin(cors.allow_origins)
        self._cors = cors
        constant = []
        if cors.allow_credentials:
            constant.append((ALLOW_CREDENTIALS, "true"))
        if cors.expose_headers:
            constant.append((EXPOSE, ", ".join(cors.expose_headers)))
        self._constant: Headers = (*constant, ("vary", "origin"))  # caches must not give one origin's to another

    def preflight(self, request: Request) -> Reply | None:
        """The answer to OPTIONS with Origin and Access-Control-Request-Method; None for other requests."""
        if request.method != "OPTIONS":
            return None
        origin = _value(request, "origin")
        method = _value(request, "access-control-request-method")
        if origin is None or method is None:
            return None
        if not self._allows(origin):
            return Reply(403, "the CORS filter of the route does not allow this origin", (("vary", "origin"),))
        return Reply(200, "", (*self._allowed(request, method), *self._shared(origin)))

    def edit(self, request: Request) -> HeaderEdit | None:
        """What the response to a request of an allowed origin gets."""
        origin = _value(request, "origin")
        if origin is None or not self._allows(origin):
            return None
        return HeaderEdit(_OURS, self._shared(origin))

    def _shared(self, origin: str) -> Headers:
        # The origin itself and never "*", which browsers refuse with credentials.
        return ((ALLOW_ORIGIN, origin), *self._constant)

    def _allowed(self, request: Request, method: str) -> Headers:
        """Wild cards are answered with what was asked for, since "*" means itself once credentials are involved."""
        asked = _value(request, "access-control-request-headers") or ""
        methods = method if "*" in self._cors.allow_methods else ", ".join(self._cors.allow_methods)
        headers = asked if "*" in self._cors.allow_headers else ", ".join(self._cors.allow_headers)
        pairs = [("access-control-allow-methods", methods), ("access-control-allow-headers", headers)]
        return (*[pair for pair in pairs if pair[1]], ("access-control-max-age", str(self._cors.max_age)))


def _any_origin(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    if "*" in patterns:
        return lambda origin: True
    exact = frozenset(pattern.lower() for pattern in patterns if "*" not in pattern)
    wild = [_wild_origin(pattern.lower()) for pattern in patterns if "*" in pattern]
    return lambda origin: origin.lower() in exact or any(test(origin.lower()) for test in wild)


def _wild_origin(pattern: str) -> Callable[[str], bool]:
    return compile_regex(_WILD.join(map(re.escape, pattern.split("*"))))


def _value(request: Request, name: str) -> str | None:
    for key, value in request.headers:
        if key == name:
            return value
    return None
