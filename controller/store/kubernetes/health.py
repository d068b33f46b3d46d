"""What is wrong between us and the API server, said once when it begins and once when it is over."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger("store")


class Health:
    """Safe for several threads. `who` is what is concerned: the plural name of a kind, say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}

    def wrong(self, who: str, sentence: str) -> None:
        with self._lock:
            new = sentence not in self._problems.values()
            self._problems[who] = sentence
        if new:
            log.warning("%s; what is known stays as it is, and it is tried again", sentence)

    def well(self, who: str) -> None:
        with self._lock:
            before = self._problems.pop(who, None)
            over = before is not None and before not in self._problems.values()
        if over:
            log.info("over: %s", before)

    def problems(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(dict.fromkeys(self._problems.values()))
