"""The label, in both directions, under connections that stand and under load."""

from __future__ import annotations

import pytest

from mesh.model.enrolment import AMBIENT
from tests.scenarios.home import Home, until
from tests.scenarios.programs import server

pytestmark = pytest.mark.root


def test_connections_outlive_the_label_in_both_directions(home: Home) -> None:
    home.label(False)
    containers = home.containers("meshed")
    before = home.start("meshed/client", "hold", "far.meshed", server.ECHO)
    assert before.ask("one") == "one"
    home.label(True)
    assert before.ask("two") == "two"
    within = home.start("meshed/client", "hold", "far.meshed", server.ECHO)
    with home.watch() as seen:
        assert within.ask("first-in-the-mesh") == "first-in-the-mesh"
    assert not seen.in_clear(b"first-in-the-mesh")
    home.label(False)
    assert before.ask("three") == "three"
    with home.watch() as seen:
        assert within.ask("still-in-its-tunnel") == "still-in-its-tunnel"
    assert not seen.in_clear(b"still-in-its-tunnel")
    assert home.containers("meshed") == containers


def test_toggling_under_load_fails_nobody(home: Home) -> None:
    load = home.start("meshed/client", "load", "far.meshed", server.ECHO)
    other = home.start("plain/inside", "load", home.service_address("meshed/far"), server.ECHO)
    for wanted in (False, True) * 4:
        home.label(wanted)
    for each in (load, other):
        result = each.finish()
        assert result["bad"] == {}
        assert result["good"] > 0


def test_a_pods_label_wins_over_its_namespace(home: Home) -> None:
    home.label_pod("meshed/near", "none")
    try:
        assert home.redirection("meshed/near") is None
        assert home.redirection("meshed/far") == "enabled"
    finally:
        home.label_pod("meshed/near", None)
    assert home.redirection("meshed/near") == "enabled"


def test_a_pod_alone_can_be_enrolled(home: Home) -> None:
    home.label_pod("plain/outside", AMBIENT)
    try:
        with home.watch() as seen:
            home.client("meshed/client", "echo", home.address("plain/outside"), server.ECHO, "now-enrolled")
        assert not seen.in_clear(b"now-enrolled")
    finally:
        home.label_pod("plain/outside", None)


NEW_POD = """
apiVersion: v1
kind: Pod
metadata: {name: eager, namespace: meshed}
spec:
  nodeName: node1
  serviceAccountName: alice
  restartPolicy: Never
  containers:
    - {name: main, command: [python3, PROGRAMS/client.py, echo, HOST, "7000", eager-first-bytes]}
"""


def test_a_new_pods_first_byte_is_not_in_clear(home: Home) -> None:
    """Its container dials in its first moment."""
    manifest = NEW_POD.replace("HOST", home.address("meshed/far"))
    with home.watch() as seen:
        home.apply(manifest)
        until(lambda: home.phase("meshed/eager") in ("Succeeded", "Failed"), "the eager pod ends")
    assert home.phase("meshed/eager") == "Succeeded"
    home.delete_pod("meshed/eager")
    assert seen.tls_records > 0
    assert not seen.in_clear(b"eager-first-bytes")
