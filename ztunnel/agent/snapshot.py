"""The last known state of the mesh and the node's certificates, on disk, so that a start needs no control plane.

Files are for root alone, since they hold private keys, and replaced as a whole: a reader sees the old or the new one.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from mesh.identity.credential import Credential
from mesh.model.update import MeshUpdate

MESH = "mesh.msgpack"
CERTIFICATES = "certificates.msgpack"

log = logging.getLogger("snapshot")

Content = TypeVar("Content")


class SnapshotError(Exception):
    """The state directory cannot be used; the text names it."""


class Snapshot:
    """Blocking; call `save_*` on a thread. A file that cannot be read is reported and ignored."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory (0700). Raises SnapshotError."""
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise SnapshotError(f"cannot use the state directory {directory}: {error.strerror}") from error

    def load_mesh(self) -> MeshUpdate | None:
        return self._load(MESH, MeshUpdate)

    def load_credentials(self) -> list[Credential]:
        return self._load(CERTIFICATES, list[Credential]) or []

    def save_mesh(self, mesh: MeshUpdate) -> None:
        self._save(MESH, mesh)

    def save_credentials(self, credentials: list[Credential]) -> None:
        self._save(CERTIFICATES, credentials)

    def _load(self, name: str, kind: type[Content]) -> Content | None:
        try:
            return msgspec.msgpack.decode((self._directory / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("ignored %s: %s", self._directory / name, error)
            return None

    def _save(self, name: str, content: object) -> None:
        try:
            replace_file(self._directory / name, msgspec.msgpack.encode(content))
        except OSError as error:
            log.error("cannot write %s: %s", self._directory / name, error.strerror)


def replace_file(path: Path, content: bytes) -> None:
    """Atomic, readable for the owner only. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
