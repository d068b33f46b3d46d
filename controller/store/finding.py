"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass

from controller.store.yaml_text import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one field."""

    path: Path
    text: str
