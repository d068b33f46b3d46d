"""A control plane for one agent: delta xDS and a CA over TLS, whose failures a test can ask for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ebpf.netns import in_netns
from mesh.model.update import MeshUpdate
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CERTIFICATE_SERVICE,
    CREATE_CERTIFICATE_METHOD,
    DELTA_METHOD,
    DISCOVERY_SERVICE,
    IMPERSONATED_IDENTITY,
)
from mesh.xds.resources import Collection, Resource, address_resource, policy_resource
from mesh.xds.server import ServerSession

HOST, PORT = "127.0.0.1", 15012


class TestAuthority:
    """A root of its own, and the certificates that it issues."""

    __test__ = False

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ambit-test")])
        self.root = self._build(name, name, self.key.public_key(), timedelta(days=1), authority=True)

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.PEM)

    def server_pair(self) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
        leaf = self._build(x509.Name([]), self.root.subject, key.public_key(), timedelta(days=1), names)
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return encoded, leaf.public_bytes(serialization.Encoding.PEM)

    def sign(self, csr_pem: str, uri: str, lifetime: timedelta) -> bytes:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        leaf = self._build(x509.Name([]), self.root.subject, csr.public_key(), lifetime, names)
        return leaf.public_bytes(serialization.Encoding.PEM)

    def _build(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        public: Any,
        lifetime: timedelta,
        names: x509.SubjectAlternativeName | None = None,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=1))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256())


class ControlPlane:
    """Listens inside the node's network namespace. `metadata` is that of the last call; `requests` those of xDS."""

    def __init__(self, netns: Path, directory: Path) -> None:
        self._netns = netns
        self.authority = TestAuthority()
        self.root_file = directory / "root-cert.pem"
        self.root_file.write_bytes(self.authority.root_pem)
        self.lifetime = timedelta(hours=24)
        self.refusal = ""  # what the CA says instead of issuing
        self.issued: list[str] = []
        self.asked: list[IstioCertificateRequest] = []
        self.requests: list[DeltaDiscoveryRequest] = []
        self.metadata: dict[str, str] = {}
        self.collections = {ADDRESS_TYPE: Collection(), AUTHORIZATION_TYPE: Collection()}
        self.groups: dict[str, str] = {}  # of a type, all that a client gets
        self._lock = threading.Lock()
        self._streams: list[queue.SimpleQueue[tuple[str, Any]]] = []
        self._server: grpc.Server | None = None

    def start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    DISCOVERY_SERVICE,
                    {
                        DELTA_METHOD: grpc.stream_stream_rpc_method_handler(
                            self._discover,
                            DeltaDiscoveryRequest.FromString,
                            DeltaDiscoveryResponse.SerializeToString,
                        )
                    },
                ),
                grpc.method_handlers_generic_handler(
                    CERTIFICATE_SERVICE,
                    {
                        CREATE_CERTIFICATE_METHOD: grpc.unary_unary_rpc_method_handler(
                            self._issue, IstioCertificateRequest.FromString, IstioCertificateResponse.SerializeToString
                        )
                    },
                ),
            )
        )
        credentials = grpc.ssl_server_credentials([self.authority.server_pair()])
        with self._netns.open() as netns:
            in_netns(netns.fileno(), lambda: server.add_secure_port(f"{HOST}:{PORT}", credentials))
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            for stream in self._streams:
                stream.put(("end", None))
            self._server.stop(0).wait()
            self._server = None

    def publish(self, update: MeshUpdate) -> None:
        self.publish_resources(ADDRESS_TYPE, [address_resource(one) for one in (*update.workloads, *update.services)])
        self.publish_resources(AUTHORIZATION_TYPE, [policy_resource(one) for one in update.policies])
        self._remove(ADDRESS_TYPE, [*update.removed_workloads, *update.removed_services])
        self._remove(AUTHORIZATION_TYPE, list(update.removed_policies))

    def publish_resources(self, type_url: str, resources: list[Resource]) -> None:
        with self._lock:
            self._tell(type_url, self.collections[type_url].apply(resources, ()))

    def _remove(self, type_url: str, names: list[str]) -> None:
        with self._lock:
            self._tell(type_url, self.collections[type_url].apply((), names))

    def _tell(self, type_url: str, names: set[str]) -> None:
        for stream in self._streams:
            stream.put(("changed", (type_url, names)))

    def rejections(self) -> list[str]:
        return [one.error_detail.message for one in self.requests if one.HasField("error_detail")]

    def _discover(
        self, requests: Iterator[DeltaDiscoveryRequest], context: grpc.ServicerContext
    ) -> Iterator[DeltaDiscoveryResponse]:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(requests, events), daemon=True).start()
        session = ServerSession(self.collections, groups=self.groups)
        self._streams.append(events)
        try:
            while True:
                kind, value = events.get()
                if kind == "end":
                    return
                with self._lock:
                    if kind == "request":
                        session.requested(value)
                    else:
                        session.changed(*value)
                    responses = list(iter(session.next_response, None))
                yield from responses
        finally:
            self._streams.remove(events)

    def _read(self, requests: Iterator[DeltaDiscoveryRequest], events: queue.SimpleQueue[tuple[str, Any]]) -> None:
        try:
            for request in requests:
                self.requests.append(request)
                events.put(("request", request))
        except Exception:
            pass
        events.put(("end", None))

    def _issue(self, request: IstioCertificateRequest, context: grpc.ServicerContext) -> IstioCertificateResponse:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.asked.append(request)
        if self.refusal:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, self.refusal)
        uri = request.metadata[IMPERSONATED_IDENTITY]
        leaf = self.authority.sign(request.csr, uri, self.lifetime)
        self.issued.append(uri)
        return IstioCertificateResponse(cert_chain=[leaf.decode(), self.authority.root_pem.decode()])
