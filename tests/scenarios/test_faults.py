"""Processes die; nothing goes out in clear, and everything comes back by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scenarios.conftest import Mesh, until
from tests.scenarios.programs import server

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


def _works(mesh: Mesh) -> bool:
    return mesh.client("meshed/client", "attempt", "far.meshed", server.ECHO) == {"result": "works"}


def test_without_ztunnel_connections_are_refused(mesh: Mesh) -> None:
    """Held down, not only restarted: the node's processes are stopped from coming back while we look."""
    supervisor = mesh.processes("deploy.local.node", "node1")
    for process in supervisor:
        subprocess.run(["kill", "-STOP", str(process)], check=True)
    try:
        mesh.kill(mesh.ztunnel("node1"))
        until(lambda: not mesh.ztunnel("node1"), "ztunnel is dead")
        far, outside = mesh.address("meshed/far"), mesh.address("plain/outside")
        with mesh.watch() as seen:
            for host in (far, outside):
                outcome = mesh.client("meshed/client", "attempt", host, server.ECHO)
                assert outcome == {"result": "ConnectionRefusedError"}
            inbound = mesh.client("plain/outside", "attempt", mesh.address("meshed/client"), server.ECHO)
            assert inbound["result"] != "works"
        assert not seen.in_clear(b"hello")
    finally:
        for process in supervisor:
            subprocess.run(["kill", "-CONT", str(process)], check=True)
    until(lambda: _works(mesh), "ztunnel serves again")


def test_ztunnel_comes_back(mesh: Mesh) -> None:
    for node in ("node1", "node2"):
        mesh.kill(mesh.ztunnel(node))
    with mesh.watch() as seen:
        until(lambda: _works(mesh), "both ztunnels serve again")
    assert not seen.in_clear(b"hello")


def test_the_agent_dies_and_no_connection_with_it(mesh: Mesh) -> None:
    held = mesh.start("meshed/client", "hold", "far.meshed", server.ECHO)
    assert held.ask("before") == "before"
    agents = mesh.processes("ztunnel.agent")
    mesh.kill(agents)
    assert held.ask("while it is away") == "while it is away"
    until(lambda: len(set(mesh.processes("ztunnel.agent")) - set(agents)) == len(agents), "agents are back")
    until(lambda: _works(mesh), "new connections work")
    assert held.ask("after") == "after"


def test_traffic_goes_on_without_the_controller(mesh: Mesh) -> None:
    """And a ztunnel that starts meanwhile serves from its disk."""
    supervisor = mesh.processes("deploy.local.daemon")
    for process in supervisor:
        subprocess.run(["kill", "-STOP", str(process)], check=True)
    try:
        mesh.kill(mesh.processes("-m controller"))
        assert _works(mesh)
        mesh.kill(mesh.ztunnel("node1") + mesh.ztunnel("node2"))
        with mesh.watch() as seen:
            until(lambda: _works(mesh), "restarted ztunnels serve from disk")
        assert not seen.in_clear(b"hello")
    finally:
        for process in supervisor:
            subprocess.run(["kill", "-CONT", str(process)], check=True)
    until(lambda: bool(mesh.processes("-m controller")), "the controller is back")


def test_the_loader_again_under_load(mesh: Mesh) -> None:
    held = mesh.start("meshed/client", "hold", "far.meshed", server.ECHO)
    load = mesh.start("meshed/client", "load", "far.meshed", server.ECHO)
    with mesh.watch() as seen:
        for node in ("node1", "node2"):
            paths = mesh.instance.node(node)
            command = ["/usr/bin/python3", "-m", "ebpf.loader", "load", "--pins", str(paths.pins)]
            subprocess.run([*command, "--cgroup", str(paths.cgroup)], cwd=ROOT, check=True)
        result = load.finish()
    assert result["bad"] == {}
    assert result["good"] > 0
    assert held.ask("after") == "after"
    assert not seen.in_clear(b"hello")


def test_maps_do_not_grow(mesh: Mesh) -> None:
    """10,000 connections later the kernel's maps hold what they held before."""

    def entries() -> int:
        status = mesh.ambit("ebpf", "status", "-o", "json").stdout
        import json

        return sum(sum(node["maps"].values()) for node in json.loads(status).values())

    before = entries()
    for _ in range(10):
        assert mesh.client("meshed/client", "churn", "far.meshed", server.ECHO, 1000) == {"done": True}
    until(lambda: entries() <= before, f"the maps shrink back to {before} entries")
