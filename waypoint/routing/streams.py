"""Routes of connections that are not HTTP: TLS by its SNI, TCP as it comes (TLSRoute, TCPRoute)."""

from __future__ import annotations

from msgspec import Struct

from mesh.model.routing import Backend, Route
from waypoint.routing.request import Destination
from waypoint.routing.weights import Weights


class Connect(Struct, frozen=True):
    """Carry the connection to `to`, as it is."""

    to: Destination
    route: str = ""
    rule: str = ""


class Refuse(Struct, frozen=True):
    """End the connection, for this reason."""

    reason: str
    route: str = ""
    rule: str = ""


class StreamRule:
    """The backends of one rule."""

    __slots__ = ("_backends", "_weights", "name", "route")

    def __init__(self, route: str, name: str, backends: tuple[Backend, ...]) -> None:
        self.route, self.name = route, name
        self._backends = backends
        self._weights = Weights([backend.weight for backend in backends])

    def connect(self, chance: float) -> Connect | Refuse:
        drawn = self._weights.draw(chance)
        if drawn is None:
            return Refuse("the rule has no backend with a weight above 0", self.route, self.name)
        backend = self._backends[drawn[0]]
        if backend.error:
            return Refuse(backend.error, self.route, self.name)
        to = Destination(backend.service, backend.port, backend.protocol)
        return Connect(to, self.route, self.name)


class StreamRoutes:
    """The TLS routes, else the TCP routes, of a port. `routes` come oldest first."""

    __slots__ = ("_any", "_exact", "_suffixes")

    def __init__(self, routes: list[Route]) -> None:
        self._exact: dict[str, StreamRule] = {}
        self._suffixes: dict[str, StreamRule] = {}
        self._any: StreamRule | None = None
        tls = [route for route in routes if route.tls is not None]
        for route in tls:
            for number, rule in enumerate(route.tls or (), 1):
                self._add_tls(rule.hostnames, StreamRule(_name(route), rule.name or str(number), rule.backends))
        # Of several TCP routes only the oldest serves (GEP-1294), and of its rules the first: nothing tells them apart.
        tcp = next((route for route in routes if route.tcp), None) if not tls else None
        if tcp is not None and tcp.tcp:
            self._any = StreamRule(_name(tcp), tcp.tcp[0].name or "1", tcp.tcp[0].backends)

    def _add_tls(self, hostnames: tuple[str, ...], rule: StreamRule) -> None:
        if not hostnames:
            self._any = self._any or rule
        for hostname in hostnames:
            lower = hostname.lower()
            if lower.startswith("*."):
                self._suffixes.setdefault(lower[1:], rule)
            else:
                self._exact.setdefault(lower, rule)

    def connect(self, sni: str, chance: float) -> Connect | Refuse:
        rule = self._find(sni.lower().rstrip("."))
        return Refuse(f"no route takes the server name {sni!a}") if rule is None else rule.connect(chance)

    def _find(self, sni: str) -> StreamRule | None:
        """The exact name, else the longest wild card: "*.a.b" takes x.a.b and y.x.a.b, not a.b."""
        rule = self._exact.get(sni)
        at = sni.find(".", 1)
        while rule is None and at != -1:
            rule = self._suffixes.get(sni[at:])
            at = sni.find(".", at + 1)
        return rule or self._any


def _name(route: Route) -> str:
    return f"{route.namespace}/{route.name}"
