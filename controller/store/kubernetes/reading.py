"""Reads one kind on a thread of its own: lists it in pages, then watches from where the list ended.

As client-go's reflector: bookmarks keep the place when nothing changes, a broken connection resumes at the last place,
and history that is compacted (410) or anything that makes no sense is answered by a new list, of which only the
differences are told.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from controller.store.interface import Change, Event, Key, Kind, NotFound, StoreError
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer, Stream
from controller.store.kubernetes.errors import Gone, Refused, of_status
from controller.store.kubernetes.handover import Closed, HandOver
from controller.store.kubernetes.health import Health
from controller.store.kubernetes.known import Known
from controller.store.kubernetes.listing import list_pages
from controller.store.kubernetes.versions import Versions
from mesh.runtime.backoff import Backoff

WATCH_SECONDS = (240, 300)  # chosen anew each time: not all kinds and replicas come back at once
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0  # seconds, with full jitter: from none up to twice as long
RESUME_PAUSE = 0.02  # after a watch that ended well, so that a server that ends them at once makes no busy loop
ABSENT_PAUSE = 30.0  # until a kind that the cluster does not have is asked for again
OPTIONAL_PAUSE = 5.0  # the same for a kind that somebody may install at any time, and waits for then
ABSENT_LOOKS = 3  # a kind that was there is believed to be gone only when the server says so repeatedly


class _Line(msgspec.Struct):
    type: str
    object: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode  # made here: msgspec's first look at a type is not thread-safe
_NONSENSE = (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError)


class Reader:
    """Goes on until the hand-over is closed and `stop` was called; no fault of the server ends it."""

    def __init__(
        self,
        server: ApiServer,
        kind: Kind,
        query: dict[str, str],
        to: HandOver,
        health: Health,
        versions: Versions | None = None,
    ) -> None:
        self._server, self._kind, self._query, self._to, self._health = server, kind, query, to, health
        self._versions = versions or Versions()
        self._path = paths.collection(self._versions.served(kind))
        self._known = Known(kind)
        self._version: str | None = None  # None: a list is needed
        self._synced = False
        self._absent = 0
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=1.0)
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{kind.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the hand-over was closed; the thread ends soon."""
        with self._lock:
            if self._stream is not None:
                self._stream.shutdown()

    def _run(self) -> None:
        try:
            while not self._to.closed.wait(self._step()):
                pass
        except Closed:
            pass
        except BaseException as error:
            self._to.fail(error)

    def _step(self) -> float:
        """One list or one watch; returns how long to wait then."""
        try:
            if self._version is None:
                self._list()
                return 0.0
            if self._watch(self._version):
                return RESUME_PAUSE
        except Gone:
            self._version = None
        except NotFound:
            return self._not_there()
        except StoreError as error:
            if not self._to.closed.is_set():
                self._health.wrong(self._kind.plural, str(error))
        return self._backoff.after_failure(random.random())

    # --- lists

    def _list(self) -> None:
        seen: set[Key] = set()
        version = list_pages(self._server, self._path, self._query, lambda items: self._page(items, seen))
        self._put(self._known.listed(seen))
        self._version, self._absent = version, 0
        self._health.well(self._kind.plural)
        self._report_synced()

    def _page(self, items: list[Any], seen: set[Key]) -> None:
        events: list[Event] = []
        try:
            events += self._known.page(items, seen)
        except _NONSENSE as error:
            raise self._nonsense(error) from error
        finally:
            self._put(events)  # what came before the fault counts as told

    def _not_there(self) -> float:
        """404 for a whole kind: the cluster does not have it, now or yet."""
        self._version = None
        untried = self._versions.next(self._kind)
        self._path = paths.collection(self._versions.served(self._kind))
        if untried:
            return 0.0
        self._absent += 1
        if self._known and self._absent < ABSENT_LOOKS:
            return self._backoff.after_failure(random.random())
        if self._kind.optional:
            self._health.well(self._kind.plural)  # the server answers, and that is no fault
        else:
            kind = f"{self._kind.kind} ({self._kind.api_version})"
            self._health.wrong(self._kind.plural, f"{self._server.host} has no kind {kind}")
        self._put(self._known.listed(set()))
        self._report_synced()
        return (OPTIONAL_PAUSE if self._kind.optional else ABSENT_PAUSE) * (0.5 + random.random())

    # --- watches

    def _watch(self, version: str) -> bool:
        """Until the server ends it; returns whether it brought anything. Raises StoreError."""
        something = False
        with self._open(version) as stream:
            self._health.well(self._kind.plural)
            for lines in stream.batches():
                self._take(lines)
                if not something:
                    something = True
                    self._backoff.succeeded()
        return something

    @contextmanager
    def _open(self, version: str) -> Iterator[Stream]:
        place = {"resourceVersion": version, "timeoutSeconds": str(random.randint(*WATCH_SECONDS))}
        query = self._query | place | {"watch": "1", "allowWatchBookmarks": "true"}
        with self._server.stream(self._path, query) as stream:
            with self._lock:
                self._stream = stream
            try:
                if self._to.closed.is_set():  # `stop` came before there was anything to shut down
                    raise Closed
                yield stream
            finally:
                with self._lock:
                    self._stream = None

    def _take(self, lines: Sequence[bytes]) -> None:
        events: list[Event] = []
        version = self._version
        self._version = None  # unless all of it makes sense
        try:
            for line in filter(None, lines):
                version = self._line(line, events)
        except _NONSENSE as error:
            raise self._nonsense(error) from error
        finally:
            self._put(events)
        self._version = version

    def _line(self, line: bytes, events: list[Event]) -> str:
        """The place after it. What is told is added to `events`, also before it fails."""
        found = _decode(line)
        if found.type == "ERROR":
            raise of_status(found.object, f"{self._server.host}: watch of {self._path}")
        version = found.object["metadata"]["resourceVersion"]
        if found.type != "BOOKMARK":
            events += self._known.changed(found.type, found.object)
        return str(version)

    # --- both

    def _nonsense(self, error: Exception) -> StoreError:
        return Refused(f"{self._server.host}: {self._path} cannot be understood: {type(error).__name__}: {error}")

    def _report_synced(self) -> None:
        if not self._synced:
            self._synced = True
            self._to.put([Event(Change.SYNCED)])

    def _put(self, events: Iterable[Event]) -> None:
        batch = list(events)
        if batch:
            self._to.put(batch)
