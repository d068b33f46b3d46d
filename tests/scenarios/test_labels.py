"""The label, in both directions, under connections that stand and under load."""

from __future__ import annotations

import pytest

from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION
from tests.scenarios.conftest import Mesh, until
from tests.scenarios.programs import server

pytestmark = pytest.mark.root


def _redirection(mesh: Mesh, pod: str) -> str | None:
    namespace, name = pod.split("/")
    return mesh.get("pod", name, "-n", namespace)["metadata"].get("annotations", {}).get(REDIRECTION)


def _containers(mesh: Mesh) -> list[str]:
    pods = mesh.get("pods", "-n", "meshed")["items"]
    return [state["containerID"] for pod in pods for state in pod["status"]["containerStatuses"]]


def test_connections_outlive_the_label_in_both_directions(mesh: Mesh) -> None:
    mesh.label(False)
    containers = _containers(mesh)
    before = mesh.start("meshed/client", "hold", "far.meshed", server.ECHO)
    assert before.ask("one") == "one"
    mesh.label(True)
    assert before.ask("two") == "two"
    within = mesh.start("meshed/client", "hold", "far.meshed", server.ECHO)
    with mesh.watch() as seen:
        assert within.ask("first-in-the-mesh") == "first-in-the-mesh"
    assert not seen.in_clear(b"first-in-the-mesh")
    mesh.label(False)
    assert before.ask("three") == "three"
    with mesh.watch() as seen:
        assert within.ask("still-in-its-tunnel") == "still-in-its-tunnel"
    assert not seen.in_clear(b"still-in-its-tunnel")
    assert _containers(mesh) == containers


def test_toggling_under_load_fails_nobody(mesh: Mesh) -> None:
    load = mesh.start("meshed/client", "load", "far.meshed", server.ECHO)
    other = mesh.start("plain/inside", "load", mesh.service_address("meshed/far"), server.ECHO)
    for wanted in (False, True) * 4:
        mesh.label(wanted)
    for each in (load, other):
        result = each.finish()
        assert result["bad"] == {}
        assert result["good"] > 0


def test_a_pods_label_wins_over_its_namespace(mesh: Mesh) -> None:
    mesh.must("local", "label", "pod", "near", "-n", "meshed", f"{DATAPLANE_MODE}=none")
    try:
        assert _redirection(mesh, "meshed/near") is None
        assert _redirection(mesh, "meshed/far") == "enabled"
    finally:
        mesh.must("local", "label", "pod", "near", "-n", "meshed", f"{DATAPLANE_MODE}-")
    assert _redirection(mesh, "meshed/near") == "enabled"


def test_a_pod_alone_can_be_enrolled(mesh: Mesh) -> None:
    mesh.must("local", "label", "pod", "outside", "-n", "plain", f"{DATAPLANE_MODE}=ambient")
    try:
        with mesh.watch() as seen:
            mesh.client("meshed/client", "echo", mesh.address("plain/outside"), server.ECHO, "now-enrolled")
        assert not seen.in_clear(b"now-enrolled")
    finally:
        mesh.must("local", "label", "pod", "outside", "-n", "plain", f"{DATAPLANE_MODE}-")


NEW_POD = """
apiVersion: v1
kind: Pod
metadata: {name: eager, namespace: meshed}
spec:
  nodeName: node1
  serviceAccountName: alice
  restartPolicy: Never
  containers:
    - {name: main, command: [sh, -c, "exec 3<>/dev/null; printf eager-first-bytes | curl -sS --max-time 5 -T - telnet://HOST:7000"]}
"""


def test_a_new_pods_first_byte_is_not_in_clear(mesh: Mesh) -> None:
    """Its container dials in its first moment."""
    manifest = NEW_POD.replace("HOST", mesh.address("meshed/far"))
    with mesh.watch() as seen:
        mesh.must("local", "apply", "-f", "-", stdin=manifest)

        def ended() -> bool:
            return mesh.get("pod", "eager", "-n", "meshed").get("status", {}).get("phase") in ("Succeeded", "Failed")

        until(ended, "the eager pod ends")
    mesh.must("local", "delete", "pod", "eager", "-n", "meshed")
    assert seen.tls_records > 0
    assert not seen.in_clear(b"eager-first-bytes")
