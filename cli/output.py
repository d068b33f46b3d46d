"""What commands print: a table for people, JSON or YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console

# Without a terminal nobody wraps lines for us, and 80 columns would fold every table.
PIPE_WIDTH = 160
console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
stderr = Console(stderr=True)


class Format(StrEnum):
    """The value of -o."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def document(value: Any, form: Format) -> None:
    """Prints a value as JSON or YAML; both are whole documents, never coloured."""
    if form is Format.JSON:
        json.dump(value, sys.stdout, indent=2, default=str)
        print()
    else:
        yaml.safe_dump(json.loads(json.dumps(value, default=str)), sys.stdout, sort_keys=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as kubectl prints them: capitals, two spaces apart, nothing cut; the head is bold on a terminal."""
    lines = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print(f"\033[1m{text}\033[0m" if number == 0 and sys.stdout.isatty() else text)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "-"
    return str(value)
