"""What depends on where the objects live: the store, the CA's key, who vouches for nodes, and whether there are others
who write too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from controller.authority.authentication import Authenticator
from controller.authority.issuer import Issuer, load_or_create, obtain
from controller.authority.tokens import KEY_FILE, TokenAuthenticator
from controller.compile.waypoint_objects import Runtime
from controller.settings import Cluster, Settings
from controller.store.directory import DirectoryStore
from controller.store.interface import Store, StoreError
from mesh.model.ports import CONTROLLER
from mesh.runtime import compiled
from mesh.runtime.backoff import Backoff

log = logging.getLogger("home")

CA_DIRECTORY = "ca"  # in the state directory
SERVICE = "ambit-controller"  # the Service by which ztunnels reach us, whatever replica
MEND_SECONDS = 30.0  # how often the one who writes looks whether the root is still where nodes look for it

# Containers of local mode see this machine's files, so what is mounted needs a place that every machine has; and the
# program is where we are, perhaps in a home directory that only its owner may enter.
_ROOT = Path(__file__).resolve().parents[1]

Work = Callable[[], Coroutine[Any, Any, None]]


class Problematic(Store, Protocol):
    """A store that can say what it cannot read."""

    async def problems(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Home:
    """`lead` runs what must not be done by two at once; it does not end. `waypoints` is how waypoints run, if they are
    to be made; `collects` whether nobody else deletes what belongs to what is gone."""

    store: Problematic
    issuer: Issuer
    authenticator: Authenticator
    names: tuple[str, ...]
    lead: Callable[[Work], Coroutine[Any, Any, None]]
    waypoints: Runtime | None
    collects: bool


async def open_home(settings: Settings) -> Home:
    """Raises StoreError, AuthorityError."""
    if isinstance(settings.store, Cluster):
        return await _in_cluster(settings.store, settings)
    return _in_directory(settings.store, settings)


def _in_directory(root: Path, settings: Settings) -> Home:
    """The only controller of its machine: it always leads."""
    store = DirectoryStore(root)
    issuer = load_or_create(settings.state / CA_DIRECTORY, settings.mesh.trust_domain, datetime.now(UTC))
    authenticator = TokenAuthenticator(settings.state / KEY_FILE)
    environment, _ = compiled.environment({"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"})
    locally = ("/mnt", tuple(environment.items()), _ROOT.stat().st_uid)
    runtime = Runtime("", (sys.executable, "-m", "waypoint"), str(settings.listen), issuer.roots, *locally)
    return Home(store, issuer, authenticator, settings.names, lambda work: work(), runtime, collects=True)


async def _in_cluster(cluster: Cluster, settings: Settings) -> Home:
    # The package is large, and local mode does without it.
    from controller.authority import secret
    from controller.authority.token_review import TokenReviewAuthenticator
    from controller.election import Election
    from controller.store.kubernetes import KubernetesStore

    store = KubernetesStore.connect(cluster.kubeconfig, cluster.context)
    server, namespace = store.server, cluster.namespace

    def obtain_issuer() -> Issuer:
        place = secret.SecretPlace(server, namespace)
        found = obtain(place, settings.mesh.trust_domain, datetime.now(UTC))
        secret.publish_roots(server, namespace, found.roots)
        return found

    issuer = await _patiently(lambda: server.call(obtain_issuer))

    async def mend_roots() -> None:
        while True:
            await asyncio.sleep(MEND_SECONDS)
            await secret.mend_roots(server, namespace, issuer.roots)

    async def lead(work: Work) -> None:
        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work())
                tasks.create_task(mend_roots())

        await Election(server, namespace, _identity()).run(both)

    authenticator = TokenReviewAuthenticator(server, namespace)
    names = (*settings.names, *service_names(namespace, settings.mesh.cluster_domain))
    address = f"{SERVICE}.{namespace}.svc.{settings.mesh.cluster_domain}:{CONTROLLER}"
    command = ("python", "-m", "waypoint")
    runtime = Runtime(settings.waypoint_image, command, address, issuer.roots) if settings.waypoint_image else None
    return Home(store, issuer, authenticator, names, lead, runtime, collects=False)


async def _patiently(work: Callable[[], Awaitable[Issuer]]) -> Issuer:
    """An API server that is away is waited for, and so are our rights: one that has just started knows of none."""
    backoff, said = Backoff(0.2, 5.0), ""
    while True:
        try:
            return await work()
        except StoreError as error:
            if str(error) != said:
                said = str(error)
                log.warning("%s; it is tried again until it works", said)
        await asyncio.sleep(backoff.after_failure(random.random()))


def service_names(namespace: str, cluster_domain: str) -> tuple[str, ...]:
    """By which pods may call the controller's Service."""
    short = f"{SERVICE}.{namespace}"
    return SERVICE, short, f"{short}.svc", f"{short}.svc.{cluster_domain}"


def _identity() -> str:
    """The pod's name, and what tells this process from an earlier one in the same pod."""
    return f"{socket.gethostname()}_{os.urandom(4).hex()}"
