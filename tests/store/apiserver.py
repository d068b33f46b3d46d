"""A real Kubernetes API server on loopback, without any node: etcd and kube-apiserver, with RBAC on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from controller.store.interface import Kind, NotFound
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.connection import connect
from tests.cluster.plan import BIN

ADMIN = "admin-token"  # of system:masters, for loopback alone
START_SECONDS = 60.0


def missing() -> str:
    """Why there can be no API server here; empty when there can."""
    if _program() is None:
        return f"no kube-apiserver, neither on PATH nor in {BIN} (python -m tests.cluster build)"
    return "" if shutil.which("etcd") else "no etcd (Debian package etcd-server)"


def _program() -> list[str] | None:
    if found := shutil.which("kube-apiserver"):
        return [found]
    if (BIN / "kube-apiserver").exists():
        return [str(BIN / "kube-apiserver")]
    return [str(BIN / "kube"), "kube-apiserver"] if (BIN / "kube").exists() else None


class Server:
    """`start` and `stop` as often as wanted: the objects stay. All of it is in `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port, self._etcd_port, self._etcd_peers = _free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        key = rsa.generate_private_key(65537, 2048)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (place / "accounts.key").write_bytes(key.private_bytes(*form))
        (place / "tokens").write_text(f'{ADMIN},admin,admin,"system:masters"\n')

    def start(self) -> None:
        if self._etcd is None:
            self._etcd = self._run("etcd", ["etcd", *self._etcd_flags()])
        if self._server is not None:
            return
        program = _program()
        assert program is not None
        self._server = self._run("kube-apiserver", [*program, *self._flags()])
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("kube-apiserver: " + (self.place / "kube-apiserver.log").read_text()[-3000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Only the API server, without a last word to anybody."""
        _end(self._server, signal.SIGKILL)
        self._server = None

    def close(self) -> None:
        self.stop()
        _end(self._etcd, signal.SIGKILL)

    def kubeconfig(self, token: str = ADMIN, port: int | None = None) -> Path:
        """A kubeconfig file for whoever has this token; `port` is where it is reached, if not its own."""
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority": str(self.place / "certificates/apiserver.crt"),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        descriptor, name = tempfile.mkstemp(suffix=".kubeconfig", dir=self.place)
        with open(descriptor, "w") as file:
            json.dump(content, file)
        return Path(name)

    def api(self, token: str = ADMIN, port: int | None = None) -> ApiServer:
        return connect(self.kubeconfig(token, port))

    def _run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.place / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.place)

    def _etcd_flags(self) -> list[str]:
        clients, peers = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._etcd_peers}"
        return [
            f"--data-dir={self.place / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync" if _etcd_knows("--unsafe-no-fsync") else "--logger=zap",
        ]

    def _flags(self) -> list[str]:
        key = self.place / "accounts.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.place / 'certificates'}",
            f"--token-auth-file={self.place / 'tokens'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Nobody makes the namespaces' default service accounts here, which it would wait for.
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _is_ready(self) -> bool:
        try:
            return bool(self.api().get("/api/v1/namespaces/default"))
        except Exception:
            return False


def _etcd_knows(flag: str) -> bool:
    return flag in subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False).stdout


def _end(process: subprocess.Popen[bytes] | None, number: int) -> None:
    if process is not None:
        if process.poll() is None:
            process.send_signal(number)
        process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def running() -> Iterator[Server]:
    place = Path(tempfile.mkdtemp(prefix="ambit-test-apiserver-"))
    server = Server(place)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(place, ignore_errors=True)


def ensure(api: ApiServer, kind: Kind, obj: dict[str, Any]) -> Any:
    """Make an object if there is none."""
    namespace = obj["metadata"].get("namespace", "")
    try:
        return api.get(paths.of(kind, obj["metadata"]["name"], namespace))
    except NotFound:
        full = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        return api.create(paths.collection(kind, namespace), full)
