"""What a waypoint's decisions cost: `python -m perf.routing`. One core, no IO; the best of five rounds.

A table of 1,000 routes with three rules each, and requests of 12 header lines.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from mesh.model.address import Ip, SocketAddress
from mesh.model.http_policy import HttpAction, HttpPolicy, Operation, PolicyRule, Source
from mesh.model.identity import SpiffeId
from mesh.model.routing import (
    Backend,
    Filters,
    HeaderChange,
    HttpMatch,
    HttpRule,
    MatchType,
    PathMatch,
    PortRouting,
    Route,
    ValueMatch,
)
from mesh.model.workload import ServiceKey
from mesh.policy.http.evaluate import CompiledPolicy, HttpPolicies, evaluate_http
from mesh.policy.http.facts import RequestFacts
from mesh.policy.match import ConnectionFacts
from waypoint.routing.paths import read_target
from waypoint.routing.request import Client, Request
from waypoint.routing.tables import PortTable

ROUNDS, CALLS = 5, 20_000
HEADERS = (*((f"x-header-{at}", "value") for at in range(10)), ("x-version", "v2"), ("user-agent", "perf"))
PEER = SpiffeId("cluster.local", "shop", "web")
CLIENT = Client(PEER, "shop", SocketAddress(Ip("10.0.0.1"), 40000))
CONNECTION = ConnectionFacts(Ip("10.0.0.1"), SocketAddress(Ip("10.0.0.2"), 80), PEER)
SERVICE = ServiceKey("shop/echo")


def table(*routes: Route) -> PortTable:
    return PortTable(SERVICE, PortRouting(80, routes=routes))


def thousand() -> PortTable:
    return table(*(Route("shop", f"route-{at}", http=_rules(at)) for at in range(1000)))


def _rules(at: int) -> tuple[HttpRule, ...]:
    to = (Backend(ServiceKey(f"shop/backend-{at}"), 80),)
    version = (ValueMatch("x-version", "v2"),)
    return (
        HttpRule((HttpMatch(PathMatch(value=f"/api/v1/service-{at}")),), backends=to),
        HttpRule((HttpMatch(PathMatch(MatchType.EXACT, f"/exact/{at}")),), backends=to),
        HttpRule((HttpMatch(PathMatch(value=f"/header/{at}"), version),), backends=to),
    )


def filtered() -> PortTable:
    change = HeaderChange(set=(("x-set", "value"),))
    filters = Filters(request_headers=change, response_headers=change)
    backends = (Backend(ServiceKey("shop/v1"), 80, 70), Backend(ServiceKey("shop/v2"), 80, 30))
    return table(Route("shop", "filters", http=(HttpRule(filters=filters, backends=backends),)))


def policies() -> HttpPolicies:
    web = PolicyRule(
        (Source(principals=("cluster.local/ns/shop/sa/web",)),), (Operation(methods=("GET",), paths=("/api/*",)),)
    )
    admin = PolicyRule(operations=(Operation(paths=("/admin*",)),))
    every = (HttpPolicy("shop", "web", rules=(web,)), HttpPolicy("shop", "admin", HttpAction.DENY, (admin,)))
    return HttpPolicies.of(map(CompiledPolicy.of, every))


def decisions() -> dict[str, Callable[[], object]]:
    def choose(port: PortTable, path: str) -> Callable[[], object]:
        request = Request("GET", "http", "echo", path, "", HEADERS)
        return lambda: port.choose(request, CLIENT, 0.5)

    many, held, path = thousand(), policies(), "/api/v1/service-777/items/1"
    return {
        "no route": choose(table(), path),
        "1,000 routes: prefix": choose(many, path),
        "1,000 routes: exact": choose(many, "/exact/500"),
        "1,000 routes: header": choose(many, "/header/500/x"),
        "1,000 routes: none": choose(many, "/none/of/these"),
        "header filters, two weights": choose(filtered(), path),
        "target: canonical": lambda: read_target("GET", path + "?a=b", "echo.shop"),
        "target: respelled": lambda: read_target("GET", "/api/v1/%73ervice-777/./items/1?a=b", "echo.shop"),
        "policy: one DENY, one ALLOW": lambda: evaluate_http(
            held, RequestFacts(CONNECTION, "GET", "echo", path, HEADERS)
        ),
    }


def main() -> None:
    print(f"{'compile 1,000 routes':32} {min(timeit.repeat(thousand, number=1, repeat=3)) * 1e3:8.0f} ms")
    for name, decide in decisions().items():
        seconds = min(timeit.repeat(decide, number=CALLS, repeat=ROUNDS)) / CALLS
        print(f"{name:32} {seconds * 1e6:8.2f} us {1 / seconds:12,.0f} per second")


if __name__ == "__main__":
    main()
