"""Who reaches whom, by which address, and what both apps and the wire see of it."""

from __future__ import annotations

import json

import pytest

from tests.scenarios.home import Home
from tests.scenarios.programs import server

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
PLACES = pytest.mark.parametrize("target", ["near", "far"])


def _host(home: Home, target: str, by: str, v6: bool) -> str:
    find = home.address if by == "pod" else home.service_address
    return find(f"meshed/{target}", v6)


@FAMILIES
@PLACES
@pytest.mark.parametrize("by", ["pod", "service"])
def test_enrolled_to_enrolled(home: Home, target: str, by: str, v6: bool) -> None:
    """It works, nothing is in clear between nodes, and both apps see the addresses they would see without a mesh."""
    host = _host(home, target, by, v6)
    secret = f"secret-{target}-{by}-{v6}"
    with home.watch() as seen:
        answer = home.client("meshed/client", "echo", host, server.ECHO, secret)
        view = home.client("meshed/client", "peer", host, server.WHO)
    assert answer == {"answer": secret}
    assert not seen.in_clear(secret.encode())
    assert not seen.in_clear(b"getpeername")
    assert seen.tls_records > 0 or target == "near"
    assert view["getpeername"] == [host, server.WHO]
    at_server = json.loads(view["line"])
    me = home.address("meshed/client", v6)
    assert view["getsockname"][0] == me
    assert at_server["accept"] == view["getsockname"]
    assert at_server["accept"][0] == me
    assert at_server["getpeername"][0] == me
    assert at_server["getsockname"] == [home.address(f"meshed/{target}", v6), server.WHO]


@FAMILIES
def test_without_the_label_it_is_in_clear(home: Home, v6: bool) -> None:
    """The watch itself: what it does not find in the mesh it finds without."""
    home.label(False)
    with home.watch() as seen:
        home.client("meshed/client", "echo", _host(home, "far", "service", v6), server.ECHO, "plain-to-read")
    assert seen.in_clear(b"plain-to-read")
    assert seen.hbone_packets == 0


@FAMILIES
@pytest.mark.parametrize("target", ["inside", "outside"])
def test_enrolled_to_outside(home: Home, target: str, v6: bool) -> None:
    host = home.address(f"plain/{target}", v6)
    view = home.client("meshed/client", "peer", host, server.WHO)
    assert view["getpeername"] == [host, server.WHO]
    assert json.loads(view["line"])["accept"][0] == home.address("meshed/client", v6)


@FAMILIES
@PLACES
@pytest.mark.parametrize("by", ["pod", "service"])
def test_outside_to_enrolled(home: Home, target: str, by: str, v6: bool) -> None:
    view = home.client("plain/inside", "peer", _host(home, target, by, v6), server.WHO)
    assert json.loads(view["line"])["accept"][0] == home.address("plain/inside", v6)


@FAMILIES
def test_outside_to_outside_beside_the_mesh(home: Home, v6: bool) -> None:
    host = home.service_address("plain/outside", v6)
    assert home.client("plain/inside", "echo", host, server.ECHO) == {"answer": "hello"}


@FAMILIES
def test_a_pod_reaches_itself(home: Home, v6: bool) -> None:
    for host in (home.address("meshed/near", v6), home.service_address("meshed/near", v6)):
        assert home.client("meshed/near", "echo", host, server.ECHO) == {"answer": "hello"}


def test_loopback_stays_private(home: Home) -> None:
    """An app that listens on 127.0.0.1 is for its own pod, in the mesh as without."""
    assert home.client("meshed/far", "echo", "127.0.0.1", server.PRIVATE) == {"answer": "hello"}
    outcome = home.client("meshed/client", "attempt", home.address("meshed/far"), server.PRIVATE)
    assert outcome["result"] != "works"


@pytest.mark.parametrize("name", ["far", "far.meshed", "far.meshed.svc", "far.meshed.svc.cluster.local"])
def test_names(home: Home, name: str) -> None:
    """In the mesh, names are answered by ztunnel; the same as without."""
    expected = sorted([home.service_address("meshed/far"), home.service_address("meshed/far", v6=True)])
    assert home.client("meshed/client", "resolve", name, 0) == {"addresses": expected}
    assert home.client("meshed/client", "echo", name, server.ECHO) == {"answer": "hello"}


def test_names_outside_the_mesh(home: Home) -> None:
    expected = sorted([home.service_address("meshed/far"), home.service_address("meshed/far", v6=True)])
    found = home.client("plain/inside", "resolve", "far.meshed.svc.cluster.local", 0)
    assert found == {"addresses": expected}


def test_headless_service(home: Home) -> None:
    found = home.client("meshed/client", "resolve", "headless.meshed", 0)
    assert home.address("meshed/far") in found["addresses"]
    assert home.client("meshed/client", "echo", "headless.meshed", server.ECHO) == {"answer": "hello"}


def test_target_port(home: Home) -> None:
    assert home.client("meshed/client", "echo", "far.meshed", 80) == {"answer": "hello"}


def test_closed_port_fails(home: Home) -> None:
    outcome = home.client("meshed/client", "attempt", home.address("meshed/far"), 9999)
    assert outcome["result"] in ("ConnectionRefusedError", "ConnectionResetError")
