"""A real controller process on loopback, and a ztunnel's side of its protocols."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.tokens import KEY_FILE, issue_node_token
from controller.store.directory import DirectoryStore
from mesh.model.workload import Service, Workload
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CREATE_CERTIFICATE_PATH,
    DELTA_PATH,
    IMPERSONATED_IDENTITY,
)
from mesh.wire.workload import decode_address

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds until a test that waits for something fails

__all__ = ["Controller", "Service", "Workload", "Ztunnel", "controller", "free_port", "run"]


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Controller:
    """Started, with its store at hand."""

    def __init__(self, place: Path, port: int, admin: int) -> None:
        self.store = DirectoryStore(place / "objects")
        self.state = place / "state"
        self.port, self.admin = port, admin
        self.process: asyncio.subprocess.Process | None = None

    def command(self, *more: str) -> list[str]:
        fixed = ["--store", f"directory:{self.store.root}", "--state", str(self.state), "--name", "controller.test"]
        where = ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        return [sys.executable, "-m", "controller", *fixed, *where, *more]

    async def start(self) -> None:
        """Until it says that it is ready."""
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.command(), cwd=ROOT, stdout=pipe, stderr=pipe)
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise AssertionError((await self.process.communicate())[1].decode())
        assert line == f"controller: ready, serving ztunnels on 127.0.0.1:{self.port}\n".encode()

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and what it logged."""
        assert self.process is not None
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
        _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()

    async def get(self, path: str) -> tuple[int, str]:
        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=PATIENCE) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(fetch)

    async def status(self) -> Any:
        return json.loads((await self.get("/status"))[1])

    async def status_until(self, true: Callable[[Any], object]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.status()
                if true(found):
                    return found
                await asyncio.sleep(0.02)

    def token(self, node: str) -> str:
        return issue_node_token(self.state / KEY_FILE, node, 600)

    def channel(self) -> grpc.aio.Channel:
        roots = (self.state / "ca/root-cert.pem").read_bytes()
        options = [("grpc.ssl_target_name_override", "controller.test")]
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", grpc.ssl_channel_credentials(roots), options=options)


@asynccontextmanager
async def controller(place: Path) -> AsyncIterator[Controller]:
    found = Controller(place, free_port(), free_port())
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


class Ztunnel:
    """Subscribes to everything and remembers it by name."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.mesh: dict[str, Workload | Service] = {}
        self.heard: list[DeltaDiscoveryResponse] = []
        method: Any = channel.stream_stream(  # the stubs do not know calls that are read and written by hand
            DELTA_PATH,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        self._call = method(metadata=self._metadata)

    async def subscribe(self, held: Mapping[str, str] | None = None) -> None:
        """`held`: versions by name of what is known from before."""
        for type_url, versions in ((ADDRESS_TYPE, held or {}), (AUTHORIZATION_TYPE, {})):
            await self._call.write(DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=versions))

    @property
    def versions(self) -> dict[str, str]:
        return {resource.name: resource.version for response in self.heard for resource in response.resources}

    async def until(self, true: Callable[[dict[str, Workload | Service]], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true(self.mesh):
                await self._take(await self._call.read())

    async def _take(self, response: DeltaDiscoveryResponse) -> None:
        self.heard.append(response)
        if response.type_url == ADDRESS_TYPE:
            for name in response.removed_resources:
                self.mesh.pop(name, None)
            for resource in response.resources:
                self.mesh[resource.name] = decode_address(resource.name, resource.resource.value)
        await self._call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))

    async def certificate(self, identity: str) -> x509.Certificate:
        """The leaf. Raises AioRpcError."""
        method = self._channel.unary_unary(
            CREATE_CERTIFICATE_PATH,
            request_serializer=IstioCertificateRequest.SerializeToString,
            response_deserializer=IstioCertificateResponse.FromString,
        )
        request = IstioCertificateRequest(csr=_csr(identity), validity_duration=3600)
        request.metadata[IMPERSONATED_IDENTITY] = identity
        answer = await method(request, metadata=self._metadata)
        return x509.load_pem_x509_certificate(answer.cert_chain[0].encode())


def _csr(identity: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(name, critical=True)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
