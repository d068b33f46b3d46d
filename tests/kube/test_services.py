"""Every kind of Service, from enrolled clients to enrolled servers on the other node; and what is beside the mesh."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.kube import pods
from tests.kube.installed import KubeMesh, until
from tests.kube.paths import Way, ask

PORT, HOST_PORT, BESIDE_PORT = pods.PORT, 7101, 7102
CLIENT = "client"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def stateful_set(namespace: str, name: str, node: str) -> pods.Object:
    labels = {"app": name}
    spec = pods.server(namespace, name, node)["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def unready(namespace: str, node: str) -> pods.Object:
    """It answers, and is never ready."""
    made = pods.server(namespace, "unready", node)
    made["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 1}, "periodSeconds": 1}
    return made


def on_the_host(namespace: str, name: str, node: str, port: int) -> pods.Object:
    return pods.pod(namespace, name, ("/traffic", "serve", str(port)), node, hostNetwork=True)


@pytest.fixture(scope="module")
def shop(mesh: KubeMesh) -> Iterator[str]:
    """An enrolled namespace: the client is on the first node, all servers are on the second."""
    here, there = mesh.nodes
    with_ca = pods.idle("", CLIENT, here)
    with_ca["spec"]["containers"][0]["env"] = [{"name": "SSL_CERT_FILE", "value": f"{ACCOUNT}/ca.crt"}]
    with mesh.namespace("services", meshed=True) as name:
        unheard = pods.service(name, "unready", clusterIP="None", publishNotReadyAddresses=True)
        hidden = pods.service(name, "unready")
        hidden["metadata"]["name"] = "hidden"
        alias = {"type": "ExternalName", "externalName": f"web.{name}.svc.cluster.local"}
        mesh.apply(
            pods.manifest(
                {**with_ca, "metadata": {**with_ca["metadata"], "namespace": name}},
                pods.server(name, "web", there),
                pods.service(name, "web", type="NodePort"),
                stateful_set(name, "db", there),
                pods.service(name, "db", clusterIP="None"),
                unready(name, there),
                unheard,
                hidden,
                on_the_host(name, "host-client", here, BESIDE_PORT),
                on_the_host(name, "host-server", there, HOST_PORT),
                pods.service(name, "host-server", HOST_PORT),
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "alias", "namespace": name},
                    "spec": alias,
                },
            )
        )
        running = ("--for=jsonpath={.status.phase}=Running", "--timeout=120s")
        mesh.kubectl("wait", "pod", "--all", "-n", name, *running)
        for pod in (CLIENT, "web", "db-0", "db-1", "unready"):
            until(lambda pod=pod: mesh.redirections(name)[pod] == "enabled", f"{pod} is enrolled")  # type: ignore[misc]
        ready = ("--for=condition=Ready", "--timeout=60s")
        mesh.kubectl("wait", "pod", CLIENT, "web", "db-0", "db-1", "host-server", "-n", name, *ready)
        for service in ("web", "db-0.db", "unready", "host-server", "alias"):
            port = HOST_PORT if service == "host-server" else PORT
            until(
                lambda where=f"{service}:{port}": bool(ask(mesh, f"{name}/{CLIENT}", where).server),  # type: ignore[misc]
                f"{service} answers",
            )
        yield name


@pytest.fixture
def client(shop: str) -> str:
    return f"{shop}/{CLIENT}"


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_cluster_ip_is_a_tunnel(mesh: KubeMesh, shop: str, client: str, family: int) -> None:
    address = mesh.service_addresses(f"{shop}/web")[family]
    assert ask(mesh, client, bracketed(address)) == Way("web", clear=False)


def bracketed(ip: str, port: int = PORT) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


@pytest.mark.parametrize(
    "name", ["web", "web.{}", "web.{}.svc", "web.{}.svc.cluster.local", "web.{}.svc.cluster.local."]
)
def test_all_names_of_a_service_are(mesh: KubeMesh, shop: str, client: str, name: str) -> None:
    assert ask(mesh, client, f"{name.format(shop)}:{PORT}") == Way("web", clear=False)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_pods_own_address_is(mesh: KubeMesh, shop: str, client: str, family: int) -> None:
    assert ask(mesh, client, bracketed(mesh.addresses(f"{shop}/web")[family])) == Way("web", clear=False)


def test_a_headless_service_leads_to_its_pods(mesh: KubeMesh, client: str) -> None:
    way = ask(mesh, client, f"db:{PORT}")
    assert way.server in ("db-0", "db-1")
    assert not way.clear


@pytest.mark.parametrize("pod", ["db-0", "db-1"])
def test_the_names_of_a_stateful_set_lead_to_that_pod(mesh: KubeMesh, shop: str, client: str, pod: str) -> None:
    assert ask(mesh, client, f"{pod}.db.{shop}.svc.cluster.local:{PORT}") == Way(pod, clear=False)


def test_an_external_name_leads_where_it_says(mesh: KubeMesh, client: str) -> None:
    assert ask(mesh, client, f"alias:{PORT}") == Way("web", clear=False)


def test_addresses_that_are_not_ready_are_used_if_published(mesh: KubeMesh, client: str) -> None:
    assert ask(mesh, client, f"unready:{PORT}") == Way("unready", clear=False)
    assert ask(mesh, client, f"hidden:{PORT}").server == ""


def test_a_pod_reaches_itself_by_its_service(mesh: KubeMesh, shop: str) -> None:
    assert ask(mesh, f"{shop}/web", f"web:{PORT}") == Way("web", clear=False)


def test_a_node_port_answers_from_outside(mesh: KubeMesh, shop: str) -> None:
    """Whoever is outside speaks in clear to the node; both nodes answer, also the one without a pod."""
    port = mesh.get("service", "web", "-n", shop)["spec"]["ports"][0]["nodePort"]
    for node in mesh.cluster.nodes:
        assert from_outside(mesh, node.addresses[0], port) == "web"


def from_outside(mesh: KubeMesh, ip: str, port: int) -> str:
    """Who answers a neighbour of the nodes."""

    def ask() -> str:
        with socket.create_connection((ip, port), 10) as connection:
            connection.sendall(b"outside\n")
            return connection.makefile().readline().split()[0]

    return mesh.within("outside", ask)


def test_the_hosts_network_is_beside_the_mesh(mesh: KubeMesh, shop: str, client: str) -> None:
    """A host's processes have no identity: to them and from them it is plain text, and pods are not cut off."""
    server = ask(mesh, client, f"host-server:{HOST_PORT}")
    assert (bool(server.server), server.clear) == (True, True)
    assert ask(mesh, f"{shop}/host-client", bracketed(mesh.addresses(f"{shop}/web")[0])) == Way("web", clear=True)
    assert mesh.redirections(shop)["host-server"] == ""


def test_the_api_server_answers_an_enrolled_pod(mesh: KubeMesh, client: str) -> None:
    """With the pod's own token, and certificates checked against the cluster's CA."""
    answer = mesh.exec(client, "/probe", "get", "https://kubernetes.default.svc/version", f"{ACCOUNT}/token")
    assert json.loads(answer)["major"] == "1"
