"""Controller processes on a real API server, with the rights of their own account."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from controller.store.kinds import CONFIG_MAP
from controller.store.kubernetes import KubernetesStore, paths
from tests.controller.process import Controller, free_port
from tests.store.system import System


class ClusterController(Controller):
    """As a replica of the Deployment; `store` has an administrator's rights."""

    def __init__(self, system: System, place: Path, port: int = 0) -> None:
        super().__init__(place, free_port(), free_port())
        self.system = system
        self.store = KubernetesStore(system.api)  # type: ignore[assignment]
        self._kubeconfig = system.server.kubeconfig(system.controller_token(), port or None)

    def command(self, *more: str) -> list[str]:
        fixed = ["--store", f"kubernetes:{self._kubeconfig}", "--namespace", self.system.namespace]
        where = ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        return [sys.executable, "-m", "controller", *fixed, *where, *more]

    def node_token(self, node: str) -> str:
        return self.system.token(pod=self.system.node_pod(node), audience="istio-ca")

    def roots(self) -> bytes:
        found = self.system.api.get(paths.of(CONFIG_MAP, "ambit-ca-root-cert", self.system.namespace))
        return str(found["data"]["root-cert.pem"]).encode()

    def channel(self) -> grpc.aio.Channel:
        options = [("grpc.ssl_target_name_override", f"ambit-controller.{self.system.namespace}.svc")]
        credentials = grpc.ssl_channel_credentials(self.roots())
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options)


@asynccontextmanager
async def replicas(system: System, place: Path, count: int = 1) -> AsyncIterator[list[ClusterController]]:
    """All started at once."""
    found = [ClusterController(system, place) for _ in range(count)]
    try:
        await asyncio.gather(*(each.start() for each in found))
        yield found
    finally:
        await asyncio.gather(*(each.stop() for each in found if each.process is not None))
