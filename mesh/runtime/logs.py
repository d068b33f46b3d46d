"""Python's loggers, by target and level, to the one writer of the process."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from mesh.runtime.lines import LineWriter
from mesh.runtime.style import Style

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


def write_line(style: Style, target: str, level: int, message: str, parts: Sequence[str]) -> None:
    """Without a LogRecord, whose making costs as much as the line: for lines that come by the thousand. The caller has
    asked the target's logger `isEnabledFor(level)`; before `configure` there is nowhere to write to."""
    if _writers:
        _writers[0].write(style.line(time.time(), _NAMES[level], target, message, parts))


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
