"""Certificates over real gRPC and TLS, as an Istio ztunnel asks for them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import jwt
import pytest

from controller.authority.tokens import issue_node_token
from controller.publish import server
from mesh.identity.certificates import key_fits, parse_leaf
from mesh.identity.csr import request_certificate
from mesh.identity.tls import TlsIdentity
from mesh.model.identity import SpiffeId
from tests.identity.test_tls import sessions, shake
from tests.publish.ztunnel import ask_certificate, channel, door

WEB = SpiffeId("cluster.local", "shop", "web")


def test_a_ztunnel_gets_the_certificate_of_a_pod_on_its_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        request = request_certificate(WEB)
        async with door(tmp_path) as to, channel(to) as over:
            response = await ask_certificate(over, to.token(), request.csr.decode(), str(WEB), seconds=3600)
        leaf, *between, roots = response.cert_chain
        assert key_fits(leaf.encode(), request.private_key)
        facts = parse_leaf(leaf)
        assert facts.identity == WEB
        assert facts.not_after - datetime.now(UTC).timestamp() <= 3600
        mine = TlsIdentity("".join([leaf, *between]).encode(), request.private_key, roots.encode())
        shake(*sessions(mine, mine))

    asyncio.run(scenario())


CSR = request_certificate(WEB).csr.decode()
VAULT = SpiffeId("cluster.local", "bank", "vault")
ELSEWHERE = SpiffeId("other.example", "shop", "web")


@pytest.mark.parametrize(
    ("node", "csr", "identity", "code", "words"),
    [
        ("node-1", request_certificate(VAULT).csr.decode(), str(VAULT), "PERMISSION_DENIED", "no pod of that service"),
        ("node-2", CSR, str(WEB), "PERMISSION_DENIED", "no pod of that service"),
        ("node-1", CSR, None, "INVALID_ARGUMENT", "ImpersonatedIdentity is missing"),
        ("node-1", CSR, "spiffe://x", "INVALID_ARGUMENT", "not a SPIFFE ID"),
        ("node-1", request_certificate(VAULT).csr.decode(), str(WEB), "INVALID_ARGUMENT", "must name"),
        ("node-1", request_certificate(ELSEWHERE).csr.decode(), str(ELSEWHERE), "INVALID_ARGUMENT", "trust domain"),
        ("node-1", "junk", str(WEB), "INVALID_ARGUMENT", "not a PEM certificate request"),
    ],
)
def test_everything_else_is_refused(
    tmp_path: Path, node: str, csr: str, identity: str | None, code: str, words: str
) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask_certificate(over, to.token(node), csr, identity)
            assert raised.value.code() is grpc.StatusCode[code]
            assert words in (raised.value.details() or "")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["none", "expired", "forged"])
def test_a_bad_credential_is_refused_and_not_quoted(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            forged = issue_node_token(tmp_path / "other.pem", "node-1", 60)
            token = {"none": None, "expired": expired_token(to.token_key), "forged": forged}[kind]
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask_certificate(over, token, CSR, str(WEB))
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            details = raised.value.details() or ""
            assert details
            assert token is None or token not in details

    asyncio.run(scenario())


def expired_token(key: Path) -> str:
    claims = jwt.decode(issue_node_token(key, "node-1", 60), options={"verify_signature": False})
    claims["exp"] = claims["iat"] - 60
    return jwt.encode(claims, key.read_bytes(), algorithm="ES256")


def test_the_serving_certificate_is_renewed_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new connection is presented changes once the half life is over."""
    early = timedelta(hours=13)  # the controller began so long ago

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - early

    monkeypatch.setattr(server, "datetime", Clock)

    def presented(port: int, roots: str) -> str:
        context = ssl.create_default_context(cadata=roots)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="ambit-controller") as tls,
        ):
            certificate = tls.getpeercert()
            assert certificate
            return str(certificate["serialNumber"])

    async def scenario() -> None:
        nonlocal early
        async with door(tmp_path) as to:
            first = await asyncio.to_thread(presented, to.address.port, to.authority.roots)
            assert await asyncio.to_thread(presented, to.address.port, to.authority.roots) == first
            early = timedelta(0)
            await asyncio.to_thread(presented, to.address.port, to.authority.roots)
            renewed = await asyncio.to_thread(presented, to.address.port, to.authority.roots)
            assert renewed != first

    asyncio.run(scenario())
