"""What a log line looks like: as Istio's ztunnel writes them, time, level, target and message separated by tabs, then
key=value pairs; or one JSON object per line with the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache


class Style:
    """Text, or JSON."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def pairs(self, fields: Mapping[str, object]) -> str:
        """Part of a line. Fields that are None or empty are left out."""
        shown = {name: value for name, value in fields.items() if value is not None and value != ""}
        if self.as_json:
            # Tuples are addresses and identities, which have words of their own.
            words = {name: str(value) if isinstance(value, tuple) else value for name, value in shown.items()}
            return json.dumps(words, default=str)[1:-1]
        return " ".join([f"{name}={_quoted(value)}" for name, value in shown.items()])

    def line(self, when: float, level: str, target: str, message: str, parts: Sequence[str]) -> str:
        """One line. `when` is seconds since the epoch; `parts` are what `pairs` has made."""
        seconds = int(when)
        stamp = f"{_second(seconds)}.{int((when - seconds) * 1e6):06}Z"
        if self.as_json:
            head = {"level": level, "time": stamp, "scope": target, "message": message}
            return "{" + ", ".join([json.dumps(head)[1:-1], *filter(None, parts)]) + "}"
        pairs = " ".join([part for part in parts if part])
        return f"{stamp}\t{level}\t{target}\t{_one_line(message)}\t{pairs}".rstrip("\t")


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _quoted(value: object) -> str:
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    plain = text.isprintable() and '"' not in text and "\\" not in text  # nearly all: no need for the encoder
    return f'"{text}"' if plain else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", " ") if "\n" in text or "\t" in text else text
