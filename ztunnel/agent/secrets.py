"""One certificate for each identity that runs on this node: fetched before it is needed, renewed at half life.

Each identity has one task, so requests for the same identity never overlap. A failed renewal leaves the old certificate
in use until it expires; without a valid one the workers are told why (CertificateMissing) and refuse.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mesh.identity.credential import Credential
from mesh.model.identity import SpiffeId
from mesh.runtime.backoff import Backoff
from mesh.runtime.control_plane import ControlError
from ztunnel.feed import Certificate, CertificateMissing

MAX_CONCURRENT = 8  # requests to the CA at once, so that a node's start is not a flood
BACKOFF_START, BACKOFF_CAP = 1.0, 150.0  # seconds, as in Istio
MISSING_CAP = 10.0  # seconds: while there is no certificate at all, connections are refused
FORGET_AFTER = 10.0  # seconds: longer than the HBONE listener of a pod that left lingers
LONGEST_SLEEP = 60.0  # seconds: the clock may be set, and certificates live by it

log = logging.getLogger("secrets")

Issue = Callable[[SpiffeId], Awaitable[Credential]]
Publish = Callable[[Certificate | CertificateMissing], None]


@dataclass
class _Entry:
    """What is known of one identity."""

    identity: SpiffeId
    credential: Credential | None = None
    reason: str = ""  # why there is none, or why it was not renewed
    attempt_at: float = 0.0  # seconds since the epoch
    backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF_START, BACKOFF_CAP))
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # issued or refused, at least once
    task: asyncio.Task[None] | None = None
    forget: asyncio.TimerHandle | None = None

    def wake_at(self) -> float:
        return min(self.attempt_at, self.credential.not_after) if self.credential else self.attempt_at


class Secrets:
    """`issue` raises ControlError; `publish` hands each change to the workers and to the disk."""

    def __init__(self, issue: Issue, publish: Publish) -> None:
        self._issue = issue
        self._publish = publish
        self._entries: dict[SpiffeId, _Entry] = {}
        self._kept: dict[SpiffeId, Credential] = {}  # from the disk, until their identity is wanted
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._requested = 0

    def keep(self, credentials: Iterable[Credential]) -> None:
        """Credentials of an earlier run: used at once when their identity is wanted and they are still valid."""
        self._kept = {credential.identity: credential for credential in credentials}

    def want(self, identities: frozenset[SpiffeId]) -> None:
        """Exactly these run here now. Others are forgotten, but not before FORGET_AFTER."""
        for identity in identities:
            entry = self._entries.get(identity) or self._begin(identity)
            if entry.forget is not None:
                entry.forget.cancel()
                entry.forget = None
        for identity, entry in self._entries.items():
            if identity not in identities and entry.forget is None:
                entry.forget = asyncio.get_running_loop().call_later(FORGET_AFTER, self._forget, identity)

    async def settled(self, identity: SpiffeId) -> None:
        """Returns when a certificate has been issued or refused at least once."""
        if entry := self._entries.get(identity):
            await entry.settled.wait()

    def credentials(self) -> list[Credential]:
        """The valid ones, for the workers and the disk."""
        return [entry.credential for entry in self._entries.values() if entry.credential]

    @property
    def requested(self) -> int:
        """Requests to the CA that are under way or wait for their turn."""
        return self._requested

    def missing(self) -> list[CertificateMissing]:
        return [
            CertificateMissing(entry.identity, entry.reason)
            for entry in self._entries.values()
            if entry.credential is None and entry.reason
        ]

    def describe(self) -> Iterator[tuple[SpiffeId, Credential | None, str]]:
        """Identity, valid credential if any, and the reason of the last failure."""
        for entry in self._entries.values():
            yield entry.identity, entry.credential, entry.reason

    def close(self) -> None:
        for identity in list(self._entries):
            self._drop(identity)

    def _begin(self, identity: SpiffeId) -> _Entry:
        entry = self._entries[identity] = _Entry(identity)
        kept = self._kept.pop(identity, None)
        if kept is not None and kept.valid(time.time()):
            self._accept(entry, kept, renew_at=time.time())  # the CA may be another one by now
        entry.task = asyncio.create_task(self._renew_for_ever(entry), name=f"certificate {identity}")
        return entry

    def _forget(self, identity: SpiffeId) -> None:
        self._drop(identity)
        self._publish(CertificateMissing(identity, "no pod of this service account is left on this node"))

    def _drop(self, identity: SpiffeId) -> None:
        entry = self._entries.pop(identity)
        if entry.task is not None:
            entry.task.cancel()
        if entry.forget is not None:
            entry.forget.cancel()

    async def _renew_for_ever(self, entry: _Entry) -> None:
        while True:
            await asyncio.sleep(min(max(0.0, entry.wake_at() - time.time()), LONGEST_SLEEP))
            self._expire(entry)
            if entry.attempt_at <= time.time():
                await self._attempt(entry)

    def _expire(self, entry: _Entry) -> None:
        if entry.credential is None or entry.credential.valid(time.time()):
            return
        entry.credential = None
        entry.reason = f"the certificate has expired; {entry.reason}" if entry.reason else "the certificate has expired"
        log.error("certificate of %s: %s", entry.identity, entry.reason)
        self._publish(CertificateMissing(entry.identity, entry.reason))

    async def _attempt(self, entry: _Entry) -> None:
        self._requested += 1
        try:
            async with self._slots:
                credential = await self._issue(entry.identity)
        except ControlError as error:
            self._refused(entry, str(error))
        except Exception as error:  # a fault of ours must not end the renewal of an identity
            log.exception("certificate of %s", entry.identity)
            self._refused(entry, f"internal error: {type(error).__name__}")
        else:
            entry.backoff.succeeded()
            log.info("certificate of %s: issued, valid for %.0f s", entry.identity, credential.not_after - time.time())
            self._accept(entry, credential, renew_at=credential.renew_at(time.time()))
        finally:
            self._requested -= 1

    def _accept(self, entry: _Entry, credential: Credential, renew_at: float) -> None:
        entry.credential, entry.reason = credential, ""
        entry.attempt_at = renew_at
        entry.settled.set()
        self._publish(Certificate(entry.identity, credential.chain, credential.private_key, credential.roots))

    def _refused(self, entry: _Entry, reason: str) -> None:
        wait = entry.backoff.after_failure(random.random())
        if entry.credential is None:
            wait = min(wait, MISSING_CAP)
        entry.reason, entry.attempt_at = reason, time.time() + wait
        log.warning("certificate of %s: %s; trying again in %.1f s", entry.identity, reason, wait)
        if entry.credential is None:
            self._publish(CertificateMissing(entry.identity, reason))
        entry.settled.set()
