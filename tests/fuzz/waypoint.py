"""What a waypoint reads of a request: targets, routes and policies agree whatever bytes come."""

from __future__ import annotations

import contextlib
import re
import ssl

from mesh.model.address import Ip, SocketAddress
from mesh.model.http_policy import HttpAction, HttpPolicy, Operation, PolicyRule
from mesh.model.routing import HttpMatch, HttpRule, MatchType, PathMatch, PortRouting, Route, ValueMatch
from mesh.model.workload import ServiceKey
from mesh.policy.evaluate import Denial
from mesh.policy.http.evaluate import CompiledPolicy, HttpPolicies, evaluate_http
from mesh.policy.http.facts import RequestFacts
from mesh.policy.http.path import BadPath, canonical_path, without_dots
from mesh.policy.match import ConnectionFacts
from waypoint.routing.paths import Target, normalise, read_target
from waypoint.routing.request import Client, Forward, Request
from waypoint.routing.tables import PortTable
from waypoint.serve.server_name import server_name

CONNECTION = ConnectionFacts(Ip("10.0.0.1"), SocketAddress(Ip("10.0.0.2"), 80))
CLIENT = Client(None, "shop", SocketAddress(Ip("10.0.0.1"), 40000))


def request_target(data: bytes) -> None:
    """Lines: method, target, authority, Host. What is read is read the same when it is sent on and read again."""
    lines = [*data.decode("latin-1").split("\n", 3), "", "", "", ""]
    method, target, authority, host = lines[:4]
    read = read_target(method, target, authority, host or None)
    if not isinstance(read, Target):
        assert read.status in (400, 501)
        assert read.reason.isascii()
        return
    assert read_target(method, read.path + read.query, read.authority) == read
    assert not re.search(r"[\x00-\x20\x7f\\#]", read.path + read.query.replace("\\", "") + read.authority)
    if read.path != "*":
        assert read.path.startswith("/")
        assert not {".", ".."} & set(read.path.split("/"))
        assert "//" not in read.path


def denied_path(data: bytes) -> None:
    """No server reads a path that policy denies out of one that policy lets through."""
    path = canonical_path("/" + data.decode("latin-1"))
    if isinstance(path, BadPath):
        return
    facts = RequestFacts(CONNECTION, "GET", "shop", path)
    for steps in SERVERS:
        seen = path
        for step in steps:
            seen = STEPS[step](seen)
        seen = without_dots(seen)
        if "*" in seen or "{" in seen:  # would be a pattern
            continue
        written = re.sub(r"[^!-~]", lambda found: f"%{ord(found[0]):02X}", seen)
        rule = PolicyRule(operations=(Operation(paths=(written,)),))
        policy = CompiledPolicy.of(HttpPolicy("shop", "p", HttpAction.DENY, (rule,)))
        assert isinstance(evaluate_http(HttpPolicies.of([policy]), facts), Denial), (path, steps, seen)


def client_hello(data: bytes) -> None:
    """A name that we read is the name that OpenSSL reads, and more bytes never change it."""
    name = server_name(data)
    if isinstance(name, str) and (seen := _name_for_openssl(data)) is not _NOTHING:
        assert name == (seen or "").lower().removesuffix(".")
    for size in range(0, len(data), max(1, len(data) // 16)):
        assert server_name(data[:size]) in (None, name)


_NOTHING = "nothing was read"


def _name_for_openssl(data: bytes) -> str | None:
    """None when the hello has none, _NOTHING when OpenSSL does not get so far."""
    seen: list[str | None] = [_NOTHING]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda tls, name, _: seen.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with contextlib.suppress(ssl.SSLError):
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    return seen[-1]


def _decode(path: str) -> str:
    return re.sub("%(?!25)([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), path)


STEPS = {
    "decode": _decode,
    "cut": lambda path: re.sub(";[^/]*", "", path),
    "resolve": without_dots,
    "merge": lambda path: re.sub("/+", "/", path),
    "backslash": lambda path: path.replace("\\", "/"),
}
SERVERS = [
    line.split()
    for line in (
        "cut",
        "cut resolve",
        "decode",
        "decode merge",
        "decode backslash",
        "decode backslash merge",
        "decode cut",
        "decode cut merge",
        "decode backslash cut",
        "decode merge cut merge",
        "decode resolve cut",
        "decode backslash resolve cut",
        "cut decode",
        "cut merge decode",
        "cut decode merge",
        "cut decode backslash",
        "cut decode backslash merge",
        "cut decode cut",
    )
]


def route_table(data: bytes) -> None:
    """Lines: rules of two routes (kind, method, header, path), then a request. An index finds what a scan finds."""
    *lines, last = data.decode("latin-1").split("\n")
    rules = [rule for rule in map(_rule, range(len(lines)), lines[:12]) if rule is not None]
    routes = tuple(Route("shop", f"r{at}", http=tuple(rules[at::2])) for at in (0, 1) if rules[at::2])
    parts = normalise("/" + last)
    if isinstance(parts, BadPath) or not routes:
        return
    request = Request(last[:1], "http", "shop", *parts, (("x", last[1:2]),))
    chosen = PortTable(ServiceKey("shop/s"), PortRouting(80, routes=routes)).choose(request, CLIENT, 0.5)
    found = sorted(_rank(route, at, rule) for route in routes for at, rule in enumerate(route.http or ())
                   if _takes(rule.matches[0], request))  # fmt: skip
    assert (chosen.route, chosen.rule) == (found[0][-2:] if found else ("", ""))
    assert isinstance(chosen, Forward) or chosen.status == (500 if found else 404)


def _rule(number: int, line: str) -> HttpRule | None:
    path = canonical_path("/" + line[3:])
    if isinstance(path, BadPath):
        return None
    kind = MatchType.EXACT if line[:1] > "M" else MatchType.PREFIX
    headers = (ValueMatch("x", line[2:3]),) if line[2:3] > "M" else ()
    return HttpRule((HttpMatch(PathMatch(kind, path), headers, (), line[1:2]),), name=f"n{number:02}")


def _rank(route: Route, at: int, rule: HttpRule) -> tuple[object, ...]:
    match = rule.matches[0]
    length = len(match.path.value.rstrip("/") if match.path.type is MatchType.PREFIX else match.path.value)
    name = f"shop/{route.name}"
    exact = match.path.type is MatchType.EXACT
    return (not exact, -length, not match.method, -len(match.headers), name, at, name, rule.name)


def _takes(match: HttpMatch, request: Request) -> bool:
    wanted = match.path.value.rstrip("/").split("/")
    if match.path.type is MatchType.EXACT:
        fits = match.path.value == request.path
    else:
        fits = request.path.split("/")[: len(wanted)] == wanted
    headers = all(match.value.encode().decode("latin-1") == request.headers[0][1] for match in match.headers)
    return fits and headers and match.method in ("", request.method)
