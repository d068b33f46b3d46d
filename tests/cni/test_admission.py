"""The plugin with the node agent's real side of the socket."""

from __future__ import annotations

import asyncio
import json

from deploy.node.admission import AdmissionServer, Refused, Request
from mesh.model.address import canonical
from tests.cni.plugin import RESULT, Outcome, Plugin, finish


async def served(plugin: Plugin, refusal: str = "") -> tuple[list[Request], list[Outcome]]:
    seen: list[Request] = []

    async def handle(request: Request) -> None:
        seen.append(request)
        if refusal and request.command == "ADD":
            raise Refused(refusal)

    server = asyncio.create_task(AdmissionServer(plugin.socket, {"ADD": handle, "DEL": handle}).serve())
    plugin.settings["retrySeconds"] = 20
    try:
        calls = [await asyncio.to_thread(finish, plugin.start(command)) for command in ("ADD", "DEL")]
    finally:
        server.cancel()
    return seen, calls


def test_a_pod_is_admitted_and_released(plugin: Plugin) -> None:
    seen, (added, deleted) = asyncio.run(served(plugin))
    assert json.loads(added.stdout) == RESULT
    assert (deleted.code, deleted.stderr) == (0, "")
    assert [request.command for request in seen] == ["ADD", "DEL"]
    request = seen[0]
    assert (request.namespace, request.name, request.uid, request.container) == ("shop", "cart-0", "u-1", "c0ffee")
    assert request.addresses == (canonical("10.9.0.7"), canonical("fd00::7"))


def test_a_pod_is_refused_with_the_agents_reason(plugin: Plugin) -> None:
    _, (added, deleted) = asyncio.run(served(plugin, refusal="ztunnel – this node's – is not serving"))
    assert added.error["code"] == 100
    assert "ztunnel – this node's – is not serving" in added.error["msg"]
    assert deleted.code == 0
