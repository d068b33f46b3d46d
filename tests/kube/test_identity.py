"""Who gets certificates of the controller in the cluster: real tokens of real pods, and those that are not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.cluster.plan import Cluster
from tests.kube import accounts, pods
from tests.kube.installed import NAMESPACE, KubeMesh, until

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def port(mesh: KubeMesh) -> Iterator[int]:
    with accounts.controller_port(mesh) as found:
        yield found


@pytest.fixture(scope="module")
def place(mesh: KubeMesh) -> Iterator[str]:
    """A namespace with a pod of service account `first` on the first node and one of `second` on the other."""
    with mesh.namespace("identity") as name:
        for account, node in zip(("first", "second", "absent"), (*mesh.nodes, ""), strict=True):
            mesh.kubectl("create", "serviceaccount", account, "-n", name)
            if node:
                pod = pods.idle(name, account, node)
                pod["spec"]["serviceAccountName"] = account
                mesh.apply(pods.manifest(pod))
        mesh.wait_ready(name)
        yield name


def answer(mesh: KubeMesh, port: int, token: str, identity: str) -> str | grpc.StatusCode:
    """The identity in the certificate, or why there is none."""

    async def ask() -> str | grpc.StatusCode:
        async with accounts.ztunnel(mesh, port, token) as ztunnel:
            try:
                leaf = await ztunnel.certificate(identity)
            except grpc.aio.AioRpcError as error:
                return error.code()
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])

    return asyncio.run(ask())


def spiffe(place: str, account: str) -> str:
    return f"spiffe://cluster.local/ns/{place}/sa/{account}"


def test_a_node_gets_certificates_of_its_own_pods_only(mesh: KubeMesh, port: int, place: str) -> None:
    one, other = (accounts.node_token(mesh, node) for node in mesh.nodes)
    first, second, absent = (spiffe(place, account) for account in ("first", "second", "absent"))
    assert answer(mesh, port, one, first) == first
    assert answer(mesh, port, other, second) == second
    assert answer(mesh, port, one, second) is DENIED
    assert answer(mesh, port, other, first) is DENIED
    assert answer(mesh, port, one, absent) is DENIED


def test_a_token_of_another_audience_account_or_no_pod_gets_nothing(mesh: KubeMesh, port: int, place: str) -> None:
    pod, first = accounts.node_pod(mesh, mesh.nodes[0]), spiffe(place, "first")
    for token in (
        accounts.token(mesh, "ambit-node", pod=pod),
        accounts.token(mesh, "ambit-node", pod=pod, audience="vault"),
        accounts.token(mesh, "ambit-node", audience=accounts.AUDIENCE),
        accounts.token(mesh, "ambit-controller", audience=accounts.AUDIENCE),
        "",
        "no.token.atall",
    ):
        assert answer(mesh, port, token, first) is UNAUTHENTICATED


def test_a_pods_own_token_is_for_a_waypoint_only(mesh: KubeMesh, port: int, place: str) -> None:
    own = accounts.token(mesh, "first", namespace=place, pod="first", audience=accounts.AUDIENCE)
    assert answer(mesh, port, own, spiffe(place, "first")) is DENIED


def test_a_deleted_pods_token_gets_nothing(mesh: KubeMesh, port: int, place: str) -> None:
    name, first = f"leaving-{int(time.time()) % 100000}", spiffe(place, "first")
    pod = pods.idle(NAMESPACE, name, mesh.nodes[0])
    pod["spec"]["serviceAccountName"] = "ambit-node"
    pod["metadata"]["labels"] = {"app": "leaving", "istio.io/dataplane-mode": "none"}
    mesh.apply(pods.manifest(pod))
    try:
        one, other = (accounts.token(mesh, "ambit-node", pod=name, audience=accounts.AUDIENCE) for _ in range(2))
        assert answer(mesh, port, one, first) == first
    finally:
        mesh.kubectl("delete", "pod", name, "-n", NAMESPACE, "--wait=true")
    assert answer(mesh, port, other, first) is UNAUTHENTICATED


def test_no_certificate_once_the_pod_has_gone(mesh: KubeMesh, port: int, place: str) -> None:
    token, second = accounts.node_token(mesh, mesh.nodes[1]), spiffe(place, "second")
    assert answer(mesh, port, token, second) == second
    mesh.kubectl("delete", "pod", "second", "-n", place, "--wait=true")
    until(lambda: answer(mesh, port, token, second) is DENIED, "the deleted pod's identity is refused")


def test_an_expired_token_gets_nothing(mesh: KubeMesh, port: int, place: str) -> None:
    """Signed by the cluster's own key, so that nothing but its time is wrong."""
    token, first = accounts.node_token(mesh, mesh.nodes[0]), spiffe(place, "first")
    now = int(time.time())
    good = signed(token, cluster_key(mesh.cluster), exp=now + 300)
    expired = signed(token, cluster_key(mesh.cluster), iat=now - 700, nbf=now - 700, exp=now - 60)
    forged = signed(token, ec.generate_private_key(ec.SECP256R1()), exp=now + 300)
    assert answer(mesh, port, good, first) == first
    assert answer(mesh, port, expired, first) is UNAUTHENTICATED
    assert answer(mesh, port, forged, first) is UNAUTHENTICATED


def cluster_key(cluster: Cluster) -> ec.EllipticCurvePrivateKey:
    """By which the API server signs tokens."""
    pem = (cluster.kubeconfig.parent / "control-plane/service-accounts.key").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def signed(token: str, key: ec.EllipticCurvePrivateKey, **claims: int) -> str:
    """The same token with other claims (RFC 7515; RFC 7518, ES256)."""
    header, body, _ = token.split(".")
    changed = {**json.loads(decoded(body)), **claims}
    text = f"{header}.{encoded(json.dumps(changed).encode())}"
    halves = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encoded(b''.join(half.to_bytes(32) for half in halves))}"


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
