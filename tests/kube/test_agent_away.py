"""New pods while no agent is there to capture them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE
from tests.kube import pods
from tests.kube.installed import NAMESPACE, READY_WITHIN, KubeMesh, until

MARKER = "nobody-holds-me"
NODE_PODS = ("-n", NAMESPACE, "-l", "app=ambit-node")


@contextmanager
def no_agents(mesh: KubeMesh) -> Iterator[None]:
    """The DaemonSet fits no node; what it has left in the kernel and in the CNI chain stays."""
    select(mesh, "nowhere")
    try:
        until(lambda: not mesh.get("pods", *NODE_PODS)["items"], "the agents have gone", 120)
        yield
    finally:
        select(mesh, None)
        mesh.kubectl("rollout", "status", "daemonset/ambit-node", "-n", NAMESPACE, f"--timeout={READY_WITHIN}")


def select(mesh: KubeMesh, place: str | None) -> None:
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"ambit-test/place": place}}}}}
    mesh.kubectl("patch", "daemonset", "ambit-node", "-n", NAMESPACE, "-p", json.dumps(patch))


@pytest.mark.long
def test_those_for_the_mesh_wait_and_all_others_start(mesh: KubeMesh) -> None:
    """For the mesh by the label of their namespace, or by their own where another pod, on another node, had one."""
    one, other = mesh.nodes
    with (
        mesh.namespace("labelled", meshed=True) as labelled,
        mesh.namespace("own") as own,
        mesh.namespace("plain") as plain,
    ):
        before = pods.idle(own, "before", one)
        before["metadata"]["labels"][DATAPLANE_MODE] = AMBIENT
        mesh.apply(pods.manifest(before, pods.server(plain, "server", one)))
        mesh.wait_ready(own)
        mesh.wait_ready(plain)
        mesh.wait_redirected(own)
        mesh.kubectl("delete", "pod", "before", "-n", own)
        command = ("/first", MARKER, mesh.addresses(f"{plain}/server")[0], str(pods.PORT))
        held = {namespace: pods.pod(namespace, "early", command, other) for namespace in (labelled, own)}
        held[own]["metadata"]["labels"][DATAPLANE_MODE] = AMBIENT
        with mesh.sniff(MARKER.encode()) as clear:
            with no_agents(mesh):
                mesh.apply(pods.manifest(*held.values(), pods.idle(plain, "new", other)))
                mesh.wait_ready(plain)
                for namespace in held:
                    until(lambda namespace=namespace: _refused(mesh, namespace), f"{namespace} is refused")
                assert clear.found == []
            for namespace in held:
                mesh.wait_ready(namespace)
                assert mesh.redirections(namespace) == {"early": "enabled"}
        assert clear.missed == 0


def _refused(mesh: KubeMesh, namespace: str) -> bool:
    events = mesh.get("events", "-n", namespace, "--field-selector=reason=FailedCreatePodSandBox")["items"]
    return any("ambit" in each["message"] for each in events)
