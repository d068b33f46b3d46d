"""Log lines as Istio's ztunnel writes them: time, level, target and message separated by tabs, then key=value pairs;
or one JSON object per line with the same keys.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
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
    root.handlers[:] = [_Handler(writer, as_json)]
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


def line(when: float, level: str, target: str, message: str, fields: Mapping[str, object], as_json: bool) -> str:
    """One line. `when` is seconds since the epoch; fields that are None or empty are left out."""
    time = datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    if as_json:
        return json.dumps({"level": level, "time": time, "scope": target, "message": message, **shown}, default=str)
    pairs = " ".join(f"{name}={_quoted(value)}" for name, value in shown.items())
    return "\t".join([time, level, target, _one_line(message), pairs]).rstrip("\t")


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter, as_json: bool) -> None:
        super().__init__()
        self._writer = writer
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
            level = _NAMES.get(record.levelno, record.levelname.lower())
            fields = getattr(record, FIELDS, {})
            self._writer.write(line(record.created, level, record.name, message, fields, self._as_json))
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
