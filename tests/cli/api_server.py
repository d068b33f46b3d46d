"""An API server in a thread that knows what the CLI reads: objects, port-forward (v4.channel.k8s.io) and exec (v5).

It stands in where the faults of a real one cannot be made at will: refusals, silence, connections that break.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import WSMsgType, web

Answer = Callable[[str], bytes | str]  # path -> HTTP response of the pod, or what the kubelet complains of


@dataclass
class Cluster:
    """What is in it; tests change it before they ask."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by path
    admin: dict[tuple[str, int], Answer] = field(default_factory=dict)  # by pod and port
    output: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # by pod: stdout, stderr, exit code
    forbidden: set[str] = field(default_factory=set)  # paths, or the name of a subresource
    token: str = "right"
    silent: set[str] = field(default_factory=set)  # pods whose port-forward never says anything
    broken: set[str] = field(default_factory=set)  # pods whose kubelet cannot be reached
    forwarding: threading.Event = field(default_factory=threading.Event)  # set when somebody forwards a port
    url: str = ""


def reply(body: Any, status: str = "200 OK") -> bytes:
    """An HTTP response as a pod's admin server writes it."""
    text = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text


@contextmanager
def serving(cluster: Cluster) -> Iterator[Cluster]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_start(cluster), loop).result(10)
    try:
        yield cluster
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def kubeconfig(cluster: Cluster, path: Path, token: str = "right") -> Path:
    """With the contexts `here` (current) and `other`, whose API server is not there."""
    contexts = {"here": cluster.url, "other": "http://127.0.0.1:1"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": name, "cluster": {"server": url}} for name, url in contexts.items()],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in contexts],
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def _start(cluster: Cluster) -> web.AppRunner:
    app = web.Application(middlewares=[_gate])
    app[CLUSTER] = cluster
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    app.add_routes([web.get(pod + "/portforward", _port_forward), web.get(pod + "/exec", _exec)])
    app.add_routes([web.get("/{path:.*}", _objects)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner


CLUSTER = web.AppKey("cluster", Cluster)


@web.middleware
async def _gate(request: web.Request, handler: Any) -> web.StreamResponse:
    cluster = request.app[CLUSTER]
    if request.headers.get("Authorization") != f"Bearer {cluster.token}":
        return _refusal(401, "Unauthorized")
    last = request.path.rpartition("/")[2]
    if {request.path, last} & cluster.forbidden:
        return _refusal(403, f'User "me" cannot get resource "{last}"')
    found: web.StreamResponse = await handler(request)
    return found


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "message": message, "code": status}, status=status)


async def _objects(request: web.Request) -> web.Response:
    """A list, page by page, or one object of it by name."""
    objects = request.app[CLUSTER].objects
    if request.path in objects:
        wanted = dict(each.split("=") for each in filter(None, request.query.get("labelSelector", "").split(",")))
        found = [each for each in objects[request.path] if wanted.items() <= each["metadata"].get("labels", {}).items()]
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 500))
        more = str(start + limit) if start + limit < len(found) else ""
        metadata = {"continue": more, "resourceVersion": "1"}
        return web.json_response({"metadata": metadata, "items": found[start : start + limit]})
    listed, _, name = request.path.rpartition("/")
    for each in objects.get(listed, ()):
        if each["metadata"]["name"] == name:
            return web.json_response(each)
    return _refusal(404, f'"{name}" not found')


async def _port_forward(request: web.Request) -> web.StreamResponse:
    cluster, pod, port = request.app[CLUSTER], request.match_info["name"], int(request.query["ports"])
    cluster.forwarding.set()
    if pod in cluster.broken:
        return _refusal(500, "error dialing backend: dial tcp 192.0.2.7:10250: connect: no route to host")
    line = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await line.prepare(request)
    for channel in (0, 1):
        await line.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
    asked = b""
    async for message in line:
        if message.type is WSMsgType.BINARY and pod not in cluster.silent:
            asked += message.data[1:]
            if b"\r\n\r\n" in asked:
                await _answer(line, cluster.admin.get((pod, port)), asked.split()[1].decode(), pod, port)
                break
    await line.close()
    return line


async def _answer(line: web.WebSocketResponse, answer: Answer | None, path: str, pod: str, port: int) -> None:
    refused = f"dial tcp4 127.0.0.1:{port}: connect: connection refused"
    found = answer(path) if answer else f"error forwarding port {port} to pod {pod}, uid : exit status 1: {refused}"
    if isinstance(found, str):
        await line.send_bytes(b"\1" + found.encode())
        return
    for start in range(0, len(found), 1000):
        await line.send_bytes(b"\0" + found[start : start + 1000])


async def _exec(request: web.Request) -> web.StreamResponse:
    cluster, pod = request.app[CLUSTER], request.match_info["name"]
    line = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
    await line.prepare(request)
    out, complaint, code = cluster.output.get(pod, ("", f"no {request.query['container']} here", 1))
    for channel, text in ((b"\1", out), (b"\2", complaint)):
        if text:
            await line.send_bytes(channel + text.encode())
    cause = {"reason": "ExitCode", "message": str(code)}
    end = {"status": "Failure", "message": f"exit code {code}", "details": {"causes": [cause]}} if code else {}
    await line.send_bytes(b"\3" + json.dumps(end or {"status": "Success"}).encode())
    await line.close()
    return line
