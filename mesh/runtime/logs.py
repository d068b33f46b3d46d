"""Log lines as Istio's ztunnel writes them: time, level, target and message separated by tabs, then key=value pairs;
or one JSON object per line with the same keys.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mesh.runtime.lines import LineWriter

LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
FIELDS = "fields"  # the attribute of a LogRecord that holds its key-value pairs: logger.info(..., extra={"fields": {}})


def configure(writer: LineWriter, as_json: bool, levels: Mapping[str, str]) -> None:
    """All loggers write to `writer`. `levels` maps targets to level names; "" is everything else."""
    _say_no_more_than_is_shown()
    root = logging.getLogger()
    root.handlers[:] = [_Handler(writer, Style(as_json))]
    _writers[:] = [writer]
    root.setLevel(LEVELS[levels.get("", "info")])
    for target, level in levels.items():
        if target:
            logging.getLogger(target).setLevel(LEVELS[level])


def _say_no_more_than_is_shown() -> None:
    """Thread, process and caller are looked up for every record, and no line has them (Python's logging HOWTO,
    "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def parse_levels(text: str) -> dict[str, str]:
    """From "info" or "info,access=debug" (Rust's filter syntax). Raises ValueError naming the part that is wrong."""
    levels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        target, equals, level = part.rpartition("=")
        if level.lower() not in LEVELS or (equals and not target):
            raise ValueError(f"{part!r} is not LEVEL or TARGET=LEVEL with one of {', '.join(LEVELS)}")
        levels[target] = level.lower()
    return levels


@dataclass(frozen=True, slots=True)
class Style:
    """How lines look: text, or JSON."""

    as_json: bool = False

    def pairs(self, fields: Mapping[str, object]) -> str:
        """Part of a line. Fields that are None or empty are left out."""
        shown = {name: value for name, value in fields.items() if value not in (None, "")}
        if self.as_json:
            return json.dumps(shown, default=str)[1:-1]
        return " ".join([f"{name}={_quoted(value)}" for name, value in shown.items()])

    def line(self, when: float, level: str, target: str, message: str, parts: Sequence[str]) -> str:
        """One line. `when` is seconds since the epoch; `parts` are what `pairs` has made."""
        stamp = datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self.as_json:
            head = {"level": level, "time": stamp, "scope": target, "message": message}
            return "{" + ", ".join([json.dumps(head)[1:-1], *filter(None, parts)]) + "}"
        return "\t".join([stamp, level, target, _one_line(message), " ".join(filter(None, parts))]).rstrip("\t")

    def write(self, logger: logging.Logger, level: int, message: str, parts: Sequence[str]) -> None:
        """Without a LogRecord, whose making costs as much as the line: for lines that come by the thousand. The caller
        has asked `logger.isEnabledFor(level)`; before `configure` there is nowhere to write to."""
        if _writers:
            _writers[0].write(self.line(time.time(), _NAMES[level], logger.name, message, parts))


_writers: list[LineWriter] = []  # the one that `configure` was given last


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter, style: Style) -> None:
        super().__init__()
        self._writer = writer
        self._style = style

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
            level = _NAMES.get(record.levelno, record.levelname.lower())
            parts = [self._style.pairs(getattr(record, FIELDS, {}))]
            self._writer.write(self._style.line(record.created, level, record.name, message, parts))
        except Exception:
            self.handleError(record)


def _quoted(value: object) -> str:
    text = str(value)
    if isinstance(value, int | float):
        return text
    plain = text.isprintable() and '"' not in text and "\\" not in text  # nearly all: no need for the encoder
    return f'"{text}"' if plain else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", " ") if "\n" in text or "\t" in text else text
