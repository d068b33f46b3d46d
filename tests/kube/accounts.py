"""Service accounts of the cluster, for whoever has their tokens: requests, and ztunnel's calls of the controller."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import yaml

from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.connection import connect
from tests.cluster.plan import BIN
from tests.controller.process import Ztunnel
from tests.kube.installed import NAMESPACE, KubeMesh

AUDIENCE = "istio-ca"  # of the tokens by which ztunnels prove themselves


def token(mesh: KubeMesh, account: str, *, namespace: str = NAMESPACE, pod: str = "", audience: str = "") -> str:
    """As a kubelet asks for one."""
    bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod] if pod else []
    chosen = ["--audience", audience] if audience else []
    return mesh.kubectl("create", "token", account, "-n", namespace, "--duration", "600s", *bound, *chosen).strip()


def api(mesh: KubeMesh, bearer: str, place: Path) -> ApiServer:
    """The API server for this token alone: none of the administrator's credentials go with it."""
    config = yaml.safe_load(mesh.cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": bearer}
    file = place / "kubeconfig"
    file.write_text(json.dumps(config))
    return connect(file)


def node_pod(mesh: KubeMesh, node: str) -> str:
    """Ambit's pod of a node."""
    pods = mesh.get("pods", "-n", NAMESPACE, "-l", "app=ambit-node")["items"]
    return next(str(each["metadata"]["name"]) for each in pods if each["spec"]["nodeName"] == node)


def node_token(mesh: KubeMesh, node: str) -> str:
    return token(mesh, "ambit-node", pod=node_pod(mesh, node), audience=AUDIENCE)


@contextmanager
def controller_port(mesh: KubeMesh) -> Iterator[int]:
    """A port of this machine that leads to the running controller."""
    command = (str(BIN / "kubectl"), f"--kubeconfig={mesh.cluster.kubeconfig}", "port-forward", "-n", NAMESPACE)
    process = subprocess.Popen((*command, "service/ambit-controller", ":15012"), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield int(found[1])
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def ztunnel(mesh: KubeMesh, port: int, bearer: str) -> AsyncIterator[Ztunnel]:
    """Somebody who calls the controller with this token."""
    roots: Any = mesh.get("configmap", "ambit-ca-root-cert", "-n", NAMESPACE)["data"]["root-cert.pem"]
    options = [("grpc.ssl_target_name_override", f"ambit-controller.{NAMESPACE}.svc")]
    credentials = grpc.ssl_channel_credentials(roots.encode())
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield Ztunnel(channel, bearer)
