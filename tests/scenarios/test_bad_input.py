"""What a user gets wrong: one sentence that says what and where, a non-zero exit, and the mesh undisturbed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.scenarios.conftest import Mesh
from tests.scenarios.programs import server

pytestmark = pytest.mark.root

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad, namespace: meshed}\nspec:\n"

MANIFESTS = {
    "malformed YAML": ("kind: [Pod\n", ["standard input:6:"]),
    "not an object": ("- just\n- a list\n", ["standard input"]),
    "no kind": ("apiVersion: v1\nmetadata: {name: x}\n", ["kind"]),
    "unknown kind": ("apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n", ["Pood"]),
    "no name": ("apiVersion: v1\nkind: Namespace\nmetadata: {}\n", ["metadata", "name"]),
    "bad name": ("apiVersion: v1\nkind: Namespace\nmetadata: {name: Bad_Name}\n", ["Bad_Name", "metadata.name"]),
    "wrong type": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: eighty}]}\n",
        ["Service", "spec.ports[0].port"],
    ),
    "port out of range": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}]}\n",
        ["spec.ports[0].port", "70000"],
    ),
    "no such namespace": (
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: nowhere}\n",
        ["serviceaccount/x", "metadata.namespace", "nowhere"],
    ),
    "no containers": (POD + "  containers: []\n", ["spec.containers"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_bad_manifests_are_refused_whole(mesh: Mesh, name: str) -> None:
    text, words = MANIFESTS[name]
    good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: beside-bad}\n---\n"
    done = mesh.ambit("local", "apply", "-f", "-", stdin=good + text)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert mesh.ambit("local", "get", "namespace", "beside-bad").returncode == 1
    assert mesh.client("meshed/client", "echo", "far.meshed", server.ECHO) == {"answer": "hello"}


WORDS = {
    "unknown kind": (["local", "get", "poods"], "poods"),
    "missing object": (["local", "get", "pod", "nobody"], "nobody"),
    "missing file": (["local", "apply", "-f", "/nowhere.yaml"], "/nowhere.yaml"),
    "missing command": (
        ["local", "exec", "client", "-n", "meshed", "--", "no-such-command"],
        "/no-such-command: No such",
    ),
    "missing pod": (["local", "exec", "nobody", "--", "true"], "nobody"),
    "unknown node": (["ztunnel-config", "workload", "--node", "node9"], "node9"),
    "no label": (["local", "label", "pod", "client", "-n", "meshed", "novalue"], "novalue"),
}


@pytest.mark.parametrize("name", WORDS)
def test_wrong_words(mesh: Mesh, name: str) -> None:
    words, named = WORDS[name]
    done = mesh.ambit(*words)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_dangling_references_are_told_and_disturb_nobody(mesh: Mesh) -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: dangling, namespace: meshed}\n"
        "spec: {selector: {app: far}, ports: [{port: 80, targetPort: no-such-name}]}\n"
    )
    mesh.must("local", "apply", "-f", "-", stdin=service)
    try:
        assert mesh.client("meshed/client", "attempt", "dangling.meshed", 80)["result"] != "works"
        assert mesh.client("meshed/client", "echo", "far.meshed", server.ECHO) == {"answer": "hello"}
    finally:
        mesh.must("local", "delete", "service", "dangling", "-n", "meshed")


def test_a_mesh_by_a_bad_name(mesh: Mesh) -> None:
    environment = {**mesh.environment, "AMBIT_LOCAL_INSTANCE": "../elsewhere"}
    done = subprocess.run([sys.executable, "-m", "cli", "status"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("ambit: AMBIT_LOCAL_INSTANCE: not a name for a local mesh: '../elsewhere'")


def test_up_twice_says_how_to_stop(mesh: Mesh) -> None:
    done = mesh.ambit("local", "up")
    assert done.returncode == 1
    assert "ambit local down" in done.stderr


def test_without_root(mesh: Mesh) -> None:
    command = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        sys.executable,
        "-m",
        "cli",
        "local",
        "up",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=mesh.environment)
    assert done.returncode == 1
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr


def test_status(mesh: Mesh) -> None:
    done = mesh.ambit("status")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node1" in done.stdout
