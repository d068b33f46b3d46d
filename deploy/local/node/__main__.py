"""`python -m deploy.local.node --name node1`: the process of one node. The daemon starts it, and starts it again."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

from controller.authority.errors import AuthorityError
from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import StoreError
from deploy.local import cgroups, description, programs
from deploy.local.addresses import NodeAddresses
from deploy.local.dns.server import DnsServer, resolvers
from deploy.local.node import registration, tokens
from deploy.local.node.kubelet import Kubelet
from deploy.local.node.pod_worker import Home
from deploy.local.node.sandbox import Sandboxes
from deploy.local.node.services import ServiceRules
from deploy.local.paths import Instance
from deploy.local.supervise import Child, write_fares
from deploy.mirror import Mirror
from deploy.node.agent import NodeAgent
from ebpf.node import Capture, NotLoaded
from mesh.model.address import SocketAddress
from mesh.runtime import logs
from mesh.runtime.lines import LineWriter
from mesh.runtime.signals import until_signalled

log = logging.getLogger("node")

WATCHED = (kinds.NAMESPACE, kinds.POD, kinds.SERVICE, kinds.ENDPOINT_SLICE)
RESOLV_CONF = Path("/etc/resolv.conf")


class CannotStart(Exception):
    """One sentence."""


class Node:
    """Everything that one node does."""

    def __init__(self, instance: Instance, addresses: NodeAddresses) -> None:
        self._instance, self._addresses = instance, addresses
        self._paths = instance.node(addresses.name)
        self._store = DirectoryStore(instance.objects)
        self._mirror = Mirror(self._store, WATCHED)

    async def run(self) -> None:
        """Until cancelled. Raises CannotStart, StoreError, OSError."""
        paths, addresses = self._paths, self._addresses
        self._prepare()
        await asyncio.to_thread(load_programs, self._instance, addresses.name)
        capture = Capture.open(paths.pins)
        sandboxes = Sandboxes(self._instance, addresses)
        agent = NodeAgent(addresses.name, self._store, self._mirror, sandboxes, capture, paths.zds_socket)
        rules = ServiceRules(paths.netns, addresses.address, programs.CLUSTER_DOMAIN, self._mirror)
        kubelet = Kubelet(Home(self._instance, addresses, self._store, sandboxes, agent), self._mirror)
        dns = DnsServer(lambda: rules.names, programs.CLUSTER_DOMAIN, upstream())
        await dns.start(paths.netns)
        key = programs.token_key(self._instance)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mirror.run())
            tasks.create_task(rules.run())
            tasks.create_task(agent.run())
            tasks.create_task(tokens.rotate(key, addresses.name, paths.token))
            tasks.create_task(self._ztunnel().run())
            await registration.register(self._store, addresses)
            await rules.applied.wait()
            tasks.create_task(kubelet.run())
            await registration.set_ready(self._store, addresses, True, "KubeletReady", "")
            log.info("node %s is ready", addresses.name)

    def _ztunnel(self) -> Child:
        child = Child(programs.ztunnel(self._instance, self._addresses))
        child.changed = lambda: write_fares(self._paths.fares, [child])
        return child

    def _prepare(self) -> None:
        for directory in (self._paths.directory, self._paths.sandboxes, self._paths.state):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for cgroup in (self._paths.system_cgroup, self._paths.cgroup / "pods"):
            cgroups.create(cgroup)
        tokens.write(programs.token_key(self._instance), self._addresses.name, self._paths.token)


def load_programs(instance: Instance, name: str) -> None:
    """Raises CannotStart with the loader's own sentence."""
    done = subprocess.run(
        programs.loader(instance, name),
        cwd=programs.ROOT,
        env=programs.environment(instance),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or f"the eBPF loader ended with exit code {done.returncode}"
        raise CannotStart(words.splitlines()[-1])
    log.info("%s", done.stdout.strip())


def upstream() -> tuple[SocketAddress, ...]:
    try:
        return resolvers(RESOLV_CONF.read_text())
    except OSError:
        return ()


async def run(instance: Instance, addresses: NodeAddresses) -> None:
    """Until SIGTERM or SIGINT."""
    await until_signalled(Node(instance, addresses).run())
    log.info("node %s ends", addresses.name)


def main() -> int:
    parser = argparse.ArgumentParser(description="The process of one node of a local mesh.")
    parser.add_argument("--name", required=True, help="the node's name, as node1")
    name = parser.parse_args().name
    writer = LineWriter(sys.stderr.fileno())
    logs.configure(writer, os.environ.get("LOG_FORMAT") == "json", logs.parse_levels("info"))
    try:
        asyncio.run(run(*description.node(name)))
    except (CannotStart, NotLoaded, StoreError, AuthorityError, OSError, LookupError) as error:
        log.error("node %s: %s", name, error)
        return 1
    except ExceptionGroup as group:
        log.exception("node %s: %s", name, group)
        return 1
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
