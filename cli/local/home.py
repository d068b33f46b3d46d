"""The mesh of `ambit local up` as a home: its nodes are network namespaces of this machine."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cli.home import TIMEOUT, NoAnswer, Part, http_get
from controller.store.interface import Kind, Object, Store, StoreError
from deploy.local import api
from deploy.local.errors import LocalError
from ebpf.node import NotLoaded
from ebpf.report import describe


class LocalHome:
    """See cli.home.Home."""

    def nodes(self) -> Sequence[str]:
        api.require_running()
        return tuple(api.nodes())

    def controllers(self) -> Sequence[str]:
        return (api.CONTROLLER,)

    def parts(self) -> Mapping[str, Part]:
        return {name: _part(fare) for name, fare in api.status()["processes"].items()}

    def problems(self) -> Sequence[str]:
        return ()

    def objects(self, kind: Kind, namespace: str = "") -> Sequence[Object]:
        try:
            return asyncio.run(api.open_store().list(kind, namespace))
        except StoreError as problem:
            raise NoAnswer(str(problem)) from None

    def store(self) -> Store:
        api.require_running()
        return api.open_store()

    def fetch(self, place: str, port: int, path: str) -> bytes:
        try:
            return http_get(api.in_node(place, _dial(port)), path)
        except (OSError, http.client.HTTPException, LocalError) as problem:
            who = "the controller" if place == api.CONTROLLER else f"ztunnel of {place}"
            raise NoAnswer(f"{who} does not answer on 127.0.0.1:{port}: {problem}") from None

    def fetch_from_pod(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        try:
            return http_get(api.in_pod(namespace, pod, _dial(port)), path)
        except (OSError, http.client.HTTPException, LocalError) as problem:
            raise NoAnswer(f"pod {namespace}/{pod} does not answer on 127.0.0.1:{port}: {problem}") from None

    def kernel(self, node: str) -> Mapping[str, Any]:
        try:
            return describe(api.pins(node))
        except (NotLoaded, OSError) as problem:
            raise NoAnswer(f"{node}: {problem}") from None


def _part(fare: Mapping[str, Any]) -> Part:
    pid, end = fare["pid"], fare["lastEnd"]
    if pid:
        return Part(True, "running", f"pid {pid}", fare["starts"], end)
    return Part(False, "not running", "", fare["starts"], end or "it has not started yet")


def _dial(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", port), TIMEOUT)
