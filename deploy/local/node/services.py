"""Keeps a node's packet rules for Services, and the names of the cluster, as the objects say."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from pathlib import Path

from deploy.local import namespaces
from deploy.local.addresses import Pair
from deploy.local.dns.names import Names, names
from deploy.local.node import packet_rules
from deploy.local.service_map import virtual_ports
from deploy.mirror import Mirror

log = logging.getLogger("services")

CALM = 0.02  # seconds in which changes are gathered
RETRY = 1.0  # seconds until rules that the kernel refused are tried again


class ServiceRules:
    """`names` are those of the cluster now."""

    def __init__(self, netns: Path, node: Pair, domain: str, mirror: Mirror) -> None:
        self._node = node
        self._netns, self._domain, self._mirror = netns, domain, mirror
        self.names: Names = {}
        self.applied = asyncio.Event()
        self._rules = ""

    async def run(self) -> None:
        """Until cancelled."""
        await self._mirror.synced.wait()
        changed = self._mirror.listen()
        while True:
            await changed.wait()
            await asyncio.sleep(CALM)
            changed.clear()
            try:
                await self._update()
            except (OSError, subprocess.CalledProcessError) as error:
                told = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
                log.error("the rules for Services cannot be set: %s", told)
                await asyncio.sleep(RETRY)
                changed.set()

    async def _update(self) -> None:
        services, slices = list(self._mirror.of("Service")), list(self._mirror.of("EndpointSlice"))
        self.names = names(self._domain, self._mirror.of("Namespace"), services, slices)
        rules = packet_rules.render(virtual_ports(services, slices), self._node)
        if rules != self._rules:
            await asyncio.to_thread(namespaces.inside, self._netns, lambda: apply(rules))
            self._rules = rules
        self.applied.set()


def apply(rules: str) -> None:
    """In the network namespace of the calling thread. Raises CalledProcessError with nft's own words."""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True, check=True)
