"""Who of several controllers writes: the holder of a Lease (coordination.k8s.io/v1). All of them serve ztunnels.

As client-go's leaderelection: only one's own clock is believed, and only for how long somebody else's record has stayed
the same. Two can write for a moment when a holder's clock stands still; what is written are whole truths, compared with
what is there, so that does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.store.interface import Conflict, Kind, NotFound, StoreError
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer

log = logging.getLogger("election")

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
LEASE_NAME = "ambit-controller"

# client-go's: a holder is replaced 15 s after its last word, and gives up by itself 5 s before that.
HELD_SECONDS = 15.0
GIVE_UP_SECONDS = 10.0
RENEW_SECONDS = 2.0

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Record:
    """A Lease's spec as it was seen; `holder` is empty when it was given back."""

    holder: str
    renewed: str
    seconds: float
    transitions: int


def read(lease: dict[str, Any]) -> Record:
    spec = lease.get("spec") or {}
    return Record(
        spec.get("holderIdentity") or "",
        spec.get("renewTime") or "",
        float(spec.get("leaseDurationSeconds") or HELD_SECONDS),
        int(spec.get("leaseTransitions") or 0),
    )


def is_free(record: Record, me: str, unchanged: float) -> bool:
    """Whether I may write my name: it is there, or nobody's, or was not renewed for `unchanged` seconds. Pure."""
    return record.holder in ("", me) or unchanged >= record.seconds


def claimed(record: Record | None, me: str, now: datetime) -> dict[str, Any]:
    """The Lease's spec with my name. Pure."""
    time_of_day = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: dict[str, Any] = {
        "holderIdentity": me,
        "leaseDurationSeconds": int(HELD_SECONDS),
        "renewTime": time_of_day,
        "leaseTransitions": 0 if record is None else record.transitions + (record.holder != me),
    }
    if record is None or record.holder != me:
        spec["acquireTime"] = time_of_day
    return spec


class Election:
    """`run` once; `leading` is what is true now."""

    def __init__(self, server: ApiServer, namespace: str, me: str) -> None:
        """`me` is different for every process that ever takes part."""
        self._server = server
        self._namespace = namespace
        self._path = paths.of(LEASE, LEASE_NAME, namespace)
        self._me = me
        self._seen: tuple[Record, float] | None = None  # and since when it has been so
        self.leading = False

    async def run(self, work: Work) -> None:
        """Does not end. While we hold the Lease, `work` runs; it is cancelled when the Lease cannot be kept."""
        while True:
            if await self._try():
                log.info("%s writes: it holds the Lease %s/%s", self._me, self._namespace, LEASE_NAME)
                await self._lead(work)
                log.warning("%s does not write any more", self._me)
            await asyncio.sleep(RENEW_SECONDS * (0.5 + random.random()))

    async def _lead(self, work: Work) -> None:
        """Raises what ends the work."""
        task = asyncio.create_task(work())
        self.leading = True
        try:
            await self._keep(task)
            if task.done():
                task.result()
        finally:
            self.leading = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._give_back()

    async def _keep(self, task: asyncio.Task[None]) -> None:
        """Until the work ends or the Lease is lost."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < GIVE_UP_SECONDS:
            if (await asyncio.wait({task}, timeout=RENEW_SECONDS))[0]:
                return
            left = GIVE_UP_SECONDS - (time.monotonic() - renewed)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    if await self._try():
                        renewed = asked
                    elif self._seen is not None and self._seen[0].holder != self._me:
                        return
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """Whether the Lease is ours now."""
        try:
            return await self._server.call(self._claim)
        except Conflict:
            return False  # somebody was faster
        except StoreError as error:
            log.warning("the Lease %s/%s cannot be had: %s", self._namespace, LEASE_NAME, error)
            return False

    def _claim(self) -> bool:
        """Blocking. Raises StoreError."""
        try:
            lease = self._server.get(self._path)
        except NotFound:
            self._write(None, claimed(None, self._me, datetime.now(UTC)))
            return True
        record = read(lease)
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, time.monotonic())
        if not is_free(record, self._me, time.monotonic() - self._seen[1]):
            return False
        self._write(lease, claimed(record, self._me, datetime.now(UTC)))
        return True

    def _write(self, lease: dict[str, Any] | None, spec: dict[str, Any]) -> None:
        if lease is None:
            metadata = {"name": LEASE_NAME, "namespace": self._namespace}
            new = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
            self._server.create(paths.collection(LEASE, self._namespace), new)
        else:  # with the resourceVersion that was read: of two who try, one gets Conflict
            self._server.replace(self._path, lease | {"spec": (lease.get("spec") or {}) | spec})

    async def _give_back(self) -> None:
        """So that the next one need not wait."""
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._server.call(self._release)
        except (StoreError, TimeoutError) as error:
            log.debug("the Lease was not given back: %s", error)

    def _release(self) -> None:
        lease = self._server.get(self._path)
        if read(lease).holder == self._me:
            self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})
