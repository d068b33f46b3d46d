"""The headers of a CONNECT, built as Istio builds them and read whatever a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.hbone.connect_headers import (
    REFUSAL,
    Baggage,
    Forwarded,
    build_baggage,
    build_forwarded,
    build_traceparent,
    parse_baggage,
    parse_forwarded,
    refusal,
    refusal_headers,
    request_headers,
    response_headers,
)
from mesh.model.address import SocketAddress, canonical
from mesh.model.workload import Locality, WorkloadType
from tests.model.building import at, pod

FULL = pod(
    "web-1",
    cluster_id="Kubernetes",
    namespace="shop",
    workload_type=WorkloadType.DEPLOYMENT,
    workload_name="web",
    canonical_name="web",
    canonical_revision="v1",
    locality=Locality("eu", "eu-1"),
)


def test_baggage_has_istios_keys_in_istios_order() -> None:
    assert build_baggage(FULL) == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,"
        "service.name=web,service.version=v1,cloud.region=eu,cloud.availability_zone=eu-1"
    )


def test_baggage_leaves_out_what_is_empty() -> None:
    assert build_baggage(pod("x")) == "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns1"


def test_baggage_is_read_as_it_was_written() -> None:
    expected = Baggage("Kubernetes", "shop", "web", "deployment", "web", "v1", "eu", "eu-1")
    assert parse_baggage(build_baggage(FULL)) == expected


@given(st.text(max_size=40).filter(str.isprintable))
def test_no_name_can_break_out_of_its_member(name: str) -> None:
    built = build_baggage(pod("x", canonical_name=name, canonical_revision="v1"))
    assert built.isascii()
    assert built.isprintable()
    parsed = parse_baggage(built)
    assert (parsed.service, parsed.version, parsed.namespace) == (name, "v1", "ns1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Baggage()),
        (",,=,a,a=b,", Baggage()),
        (" service.name = web ;prop=1 , x=y", Baggage(service="web")),
        ("service.name=a,service.name=b", Baggage(service="b")),
        ("service.name=" + "x" * 300, Baggage()),
        ("service.name=web," + "x" * 9000, Baggage()),
        ("service.name=a%0d%0ab", Baggage()),
        ("," * 100 + "service.name=web", Baggage()),
        ("k8s.cronjob.name=nightly", Baggage(workload_name="nightly", workload_type="cronjob")),
        ("k8s.secret.name=x", Baggage()),
    ],
)
def test_hostile_or_odd_baggage(text: str, expected: Baggage) -> None:
    assert parse_baggage(text) == expected


@given(st.text(max_size=2000))
def test_any_baggage_is_read(text: str) -> None:
    parse_baggage(text)


# --- forwarded


@pytest.mark.parametrize(
    ("client", "service", "expected"),
    [
        ("10.0.0.1:1234", "", 'for="10.0.0.1:1234"'),
        ("10.0.0.1:1234", "web.ns.svc.cluster.local", 'for="10.0.0.1:1234";host=web.ns.svc.cluster.local'),
        ("[fd00::1]:1234", "", 'for="[fd00::1]:1234"'),
    ],
)
def test_forwarded_is_written_and_read(client: str, service: str, expected: str) -> None:
    assert build_forwarded(at(client), service) == expected
    assert parse_forwarded(expected) == Forwarded(at(client), service)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Forwarded()),
        ("for=10.0.0.1:80", Forwarded(at("10.0.0.1:80"))),
        ('FOR="10.0.0.1:80"; Host=web', Forwarded(at("10.0.0.1:80"), "web")),
        ("host=web;proto=http;for=unknown", Forwarded(None, "web")),
        ('for="10.0.0.1:80", for="10.0.0.2:80"', Forwarded(at("10.0.0.1:80"))),
        ('for="[::ffff:10.0.0.1]:80"', Forwarded(at("10.0.0.1:80"))),
        (r'for="10.0.0.1\:80"', Forwarded(at("10.0.0.1:80"))),
        ('for="10.0.0.1"', Forwarded(SocketAddress(canonical("10.0.0.1"), 0))),
        ('for="[fd00::1]"', Forwarded(SocketAddress(canonical("fd00::1"), 0))),
        ("for=fd00", Forwarded()),
        ('for="fd00::1"', Forwarded()),
        ('for="[10.0.0.1]"', Forwarded()),
        ('for="10.0.0.1:0"', Forwarded()),
        ('for="10.0.0.1:99999"', Forwarded()),
        ('for="10.0.0.1:80', Forwarded()),
        ("for=a;for=b", Forwarded()),
        ('host="a b"', Forwarded()),
        ('host="a\r\nb"', Forwarded()),
        ("host=" + "a" * 254, Forwarded()),
        ("host=web;x=" + "y" * 2000, Forwarded()),
        ('for="_hidden:80"', Forwarded()),
    ],
)
def test_odd_forwarded_headers(text: str, expected: Forwarded) -> None:
    assert parse_forwarded(text) == expected


@given(st.text(max_size=1500) | st.text(alphabet='for=";host\\,. :[]0', max_size=1500))
def test_any_forwarded_header_is_read(text: str) -> None:
    found = parse_forwarded(text)
    assert len(found.host) <= 253


@given(st.ip_addresses(), st.integers(0, 65535))
def test_any_client_comes_back(ip: object, port: int) -> None:
    client = SocketAddress(canonical(str(ip)), port)
    assert parse_forwarded(build_forwarded(client, "a.b")) == Forwarded(client, "a.b")


# --- the whole


def test_a_trace_parent_is_never_all_zero() -> None:
    assert build_traceparent(0xABC, 0xDEF) == f"00-{'abc':0>32}-{'def':0>16}-00"
    assert build_traceparent(0, 0) == f"00-{'1':0>32}-{'1':0>16}-00"


def test_request_and_response_headers() -> None:
    names = dict(request_headers(FULL, at("10.0.0.1:1"), "web", 1, 2))
    assert set(names) == {"baggage", "forwarded", "traceparent"}
    assert dict(response_headers(FULL)) == {"baggage": build_baggage(FULL)}


# --- refusals


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("policy ns/p denies: rule 1", "policy ns/p denies: rule 1"),
        ("two\r\nlines: injected", "two??lines: injected"),
        ("Grüße", "Gr??e"),
        ("x" * 600, "x" * 512),
    ],
)
def test_a_refusal_is_told_in_visible_text(reason: str, told: str) -> None:
    headers = dict(refusal_headers(reason))
    assert headers == {REFUSAL: told}
    assert refusal(headers) == told
    assert refusal({REFUSAL: reason}) == told, "whatever a peer sends"


def test_no_refusal_is_no_header() -> None:
    assert refusal_headers("") == ()
    assert refusal({}) == ""
