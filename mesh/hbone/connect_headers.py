"""The headers of a CONNECT: who calls (baggage), from where and for which service (forwarded), which trace.

What comes from a peer is a claim: parsers bound what they read, never raise, and drop what is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from mesh.model.address import SocketAddress, canonical
from mesh.model.workload import Workload, WorkloadType

BAGGAGE = "baggage"
FORWARDED = "forwarded"
TRACEPARENT = "traceparent"
FORWARDED_NETWORK = "x-forwarded-network"
SOURCE_IDENTITY = "x-ambit-source-identity"  # whom a waypoint serves; believed of nobody but a workload's own waypoint
REFUSAL = "x-ambit-refusal"  # why a CONNECT was not answered with 200, for the log of the other end

_LONGEST_REFUSAL = 512
_LONGEST = 8192  # bytes of a baggage header (W3C Baggage 3.3.2)
_MOST_MEMBERS = 64  # likewise
_LONGEST_VALUE = 256  # a label value in the mesh is at most 253 characters
_BAGGAGE_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"  # baggage-octet (W3C Baggage 3.3.1.3) without "%"
_LONGEST_FORWARDED = 1024
_PAIR = re.compile(
    r"\s*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s;,"]*))\s*(?P<end>[;,]|$)'
)
# What peers of our kind and Istio's send; anything else that RFC 7239 allows takes five times as long.
_USUAL = re.compile(
    r'for="(?P<ip>[0-9.]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})"(?:;host=(?P<host>[A-Za-z0-9._*-]{1,253}))?'
)
_HOSTNAME = re.compile(r"[A-Za-z0-9._*-]{1,253}")
_KINDS = ("deployment", "cronjob", "pod", "job")


def request_headers(
    source: Workload, client: SocketAddress, service: str, trace_id: int, span_id: int
) -> tuple[tuple[str, str], ...]:
    """The headers of a CONNECT for `client`, an app's socket in pod `source`; `service` is the addressed hostname."""
    return (
        (BAGGAGE, build_baggage(source)),
        (FORWARDED, build_forwarded(client, service)),
        (TRACEPARENT, build_traceparent(trace_id, span_id)),
    )


def response_headers(destination: Workload) -> tuple[tuple[str, str], ...]:
    return ((BAGGAGE, build_baggage(destination)),)


# --- refusals


def refusal_headers(reason: str) -> tuple[tuple[str, str], ...]:
    """Of a response that is not 200. A header holds visible ASCII (RFC 9110 section 5.5)."""
    return ((REFUSAL, _visible(reason)),) if reason else ()


def refusal(headers: Mapping[str, str]) -> str:
    """What the peer says why it refuses; "" when it says nothing."""
    return _visible(headers.get(REFUSAL, ""))


def _visible(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text[:_LONGEST_REFUSAL]).strip()


# --- baggage


@dataclass(frozen=True, slots=True)
class Baggage:
    """What a peer says about its workload; "" where it says nothing."""

    cluster: str = ""
    namespace: str = ""
    workload_name: str = ""
    workload_type: str = ""
    service: str = ""
    version: str = ""
    region: str = ""
    zone: str = ""


_MEMBERS = {
    "k8s.cluster.name": "cluster",
    "k8s.namespace.name": "namespace",
    "service.name": "service",
    "service.version": "version",
    "cloud.region": "region",
    "cloud.availability_zone": "zone",
}


def build_baggage(workload: Workload) -> str:
    """Istio's keys in Istio's order, empty ones left out."""
    return _baggage(
        workload.cluster_id,
        workload.namespace,
        workload.workload_type,
        workload.workload_name,
        workload.canonical_name,
        workload.canonical_revision,
        workload.locality.region,
        workload.locality.zone,
    )


@lru_cache(maxsize=1024)  # one for each pod of this node, needed for each of their connections
def _baggage(
    cluster: str, namespace: str, kind: WorkloadType, name: str, service: str, version: str, region: str, zone: str
) -> str:
    members = (
        ("k8s.cluster.name", cluster),
        ("k8s.namespace.name", namespace),
        (f"k8s.{kind.name.lower()}.name", name),
        ("service.name", service),
        ("service.version", version),
        ("cloud.region", region),
        ("cloud.availability_zone", zone),
    )
    return ",".join(f"{key}={quote(value, safe=_BAGGAGE_SAFE)}" for key, value in members if value)


def parse_baggage(text: str) -> Baggage:
    """Unknown keys are ignored, of a repeated key the last counts; too long a header is ignored as a whole."""
    found: dict[str, str] = {}
    for member in text.split(",")[:_MOST_MEMBERS] if len(text) <= _LONGEST else ():
        key, _, value = member.partition(";")[0].partition("=")
        value = unquote(value.strip(), errors="replace")
        if len(value) <= _LONGEST_VALUE and value.isprintable():
            found.update(_member(key.strip(), value))
    return Baggage(**found)


def _member(key: str, value: str) -> dict[str, str]:
    if key in _MEMBERS:
        return {_MEMBERS[key]: value}
    for kind in _KINDS:
        if key == f"k8s.{kind}.name":
            return {"workload_type": kind, "workload_name": value}
    return {}


# --- forwarded (RFC 7239)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Of the first hop: the client's socket, and the host that it asked for."""

    client: SocketAddress | None = None
    host: str = ""


def build_forwarded(client: SocketAddress, service: str = "") -> str:
    """A port that nobody knows, 0, is left out."""
    node = str(client).removesuffix(":0")
    host = f";host={service}" if service else ""
    return f'for="{node}"{host}'


def parse_forwarded(text: str) -> Forwarded:
    """Only the first element; a header with anything malformed in it says nothing."""
    usual = _USUAL.fullmatch(text) if len(text) <= _LONGEST_FORWARDED else None
    if usual is not None:
        return Forwarded(_socket_address(f"{usual['ip']}:{usual['port']}"), usual["host"] or "")
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text) <= _LONGEST_FORWARDED:
        pair = _PAIR.match(text, position)
        if pair is None or pair["name"].lower() in pairs:
            return Forwarded()
        quoted = pair["quoted"]
        pairs[pair["name"].lower()] = pair["token"] if quoted is None else _unescaped(quoted)
        if pair["end"] != ";":
            break
        position = pair.end()
    host = pairs.get("host", "")
    return Forwarded(_socket_address(pairs.get("for", "")), host if _HOSTNAME.fullmatch(host) else "")


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted) if "\\" in quoted else quoted


def _socket_address(text: str) -> SocketAddress | None:
    """Port 0 where there is none; an IPv6 address has brackets in any case (RFC 7239 section 6)."""
    bracketed = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if bracketed else text
    try:
        if bracketed == (":" in host):
            return SocketAddress(canonical(host), 0)
        return SocketAddress.parse(text)
    except ValueError:
        return None


# --- trace context (W3C Trace Context level 1)


def build_traceparent(trace_id: int, span_id: int) -> str:
    """From 128 and 64 random bits; not sampled."""
    return f"00-{trace_id or 1:032x}-{span_id or 1:016x}-00"
