"""Probes of containers, as the kubelet makes them: HTTP, TCP or a command, with thresholds.

A probe's socket lives in the pod's own network namespace and dials the pod's own address there: it never leaves the
pod, so it means the same whether the pod is in the mesh or not, and no policy can be in its way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import namespaces
from mesh.model.address import Ip

MAX_STATUS_LINE = 4096
Check = Callable[[], Awaitable[bool]]


@dataclass
class Verdict:
    """Counts results in a row; turns only after as many as its threshold says (Probe in core/v1)."""

    successes_needed: int
    failures_needed: int
    passing: bool
    _successes: int = 0
    _failures: int = 0

    def count(self, success: bool) -> bool:
        """One more result; returns the verdict."""
        self._successes = self._successes + 1 if success else 0
        self._failures = 0 if success else self._failures + 1
        if self._successes >= self.successes_needed:
            self.passing = True
        elif self._failures >= self.failures_needed:
            self.passing = False
        return self.passing


async def run(probe: Mapping[str, Any], check: Check, initially: bool, told: Callable[[bool], None]) -> None:
    """Probe without end; `told` hears the verdict after every result."""
    verdict = Verdict(int(probe.get("successThreshold", 1)), int(probe.get("failureThreshold", 3)), initially)
    await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
    while True:
        try:
            async with asyncio.timeout(float(probe.get("timeoutSeconds", 1))):
                success = await check()
        except (TimeoutError, OSError, ValueError):  # ValueError: it names a port that the container has not
            success = False
        told(verdict.count(success))
        await asyncio.sleep(float(probe.get("periodSeconds", 10)))


async def started(probe: Mapping[str, Any], check: Check) -> bool:
    """Until a startup probe passes, or has failed as often as it may."""
    verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    failures_left = int(probe.get("failureThreshold", 3))

    async def counted() -> bool:
        nonlocal failures_left
        failures_left -= 1
        return await check()

    def told(passes: bool) -> None:
        if (passes or failures_left <= 0) and not verdict.done():
            verdict.set_result(passes)

    probing = asyncio.create_task(run({**probe, "failureThreshold": 1}, counted, initially=False, told=told))
    try:
        return await verdict
    finally:
        probing.cancel()


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A probe's port, by number or by its name among the container's ports. Raises ValueError."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for each in container.get("ports", ()):
        if each.get("name") == port:
            return int(each["containerPort"])
    raise ValueError(f"container {container.get('name')} has no port named {port!r}")


async def connects(netns: Path, ip: Ip, port: int) -> bool:
    """Whether a TCP connection can be made."""
    with await _dial(netns, ip, port):
        return True


async def answers(netns: Path, ip: Ip, port: int, request: Mapping[str, Any]) -> bool:
    """Whether GET is answered with a status from 200 to 399."""
    with await _dial(netns, ip, port) as connection:
        host = f"[{ip}]" if ":" in ip else ip
        headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/ambit", "Connection": "close"}
        headers |= {each["name"]: each["value"] for each in request.get("httpHeaders", ())}
        lines = [f"GET {request.get('path', '/')} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n" not in answer and len(answer) < MAX_STATUS_LINE:
            more = await loop.sock_recv(connection, MAX_STATUS_LINE)
            if not more:
                break
            answer += more
        parts = answer.partition(b"\r\n")[0].split()
        return len(parts) > 1 and parts[0].startswith(b"HTTP/") and b"200" <= parts[1] <= b"399"


async def _dial(netns: Path, ip: Ip, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    connection = namespaces.inside(netns, lambda: socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    try:
        await asyncio.get_running_loop().sock_connect(connection, (ip, port))
    except BaseException:
        connection.close()
        raise
    return connection
