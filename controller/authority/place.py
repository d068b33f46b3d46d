"""Where the CA's files are kept: a directory on disk, or (`secret`) a Secret of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from controller.authority import files


class Place(Protocol):
    """Files by name. Every method but `where` raises AuthorityError, or the StoreErrors of an API server."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes: ...

    def where(self, name: str) -> str:
        """How a sentence calls this file."""

    def create(self, private: Mapping[str, bytes], public: Mapping[str, bytes]) -> None:
        """All of them in one step, or none when somebody else made them first."""


class Directory:
    """A `Place` on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        return (self._path / name).exists()

    def read(self, name: str) -> bytes:
        return files.read(self._path / name)

    def where(self, name: str) -> str:
        return str(self._path / name)

    def create(self, private: Mapping[str, bytes], public: Mapping[str, bytes]) -> None:
        files.create_directory(self._path, private, public)
