"""Files of the authority: private from their first moment, whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from controller.authority.errors import AuthorityError

_PRIVATE, _PUBLIC = 0o600, 0o644


def read(path: Path) -> bytes:
    """Raises AuthorityError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthorityError(f"cannot read {path}: {error.strerror}") from error


def create_directory(path: Path, private: Mapping[str, bytes], public: Mapping[str, bytes]) -> bool:
    """Make a directory with these files in one step; False when somebody else made it first. Raises AuthorityError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            for files, mode in ((private, _PRIVATE), (public, _PUBLIC)):
                for name, content in files.items():
                    _write(making / name, content, mode)
            making.chmod(0o755)
            making.rename(path)  # replaces an empty directory, fails on a filled one
            _sync(path.parent)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        if path.is_dir() and any(path.iterdir()):
            return False
        raise AuthorityError(f"cannot write {path}: {error.strerror}") from error
    return True


def create_private(path: Path, content: bytes) -> bool:
    """Make a private file in one step; False when there is one already. Raises AuthorityError."""
    making = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(making, content, _PRIVATE)
        try:
            os.link(making, path)
        finally:
            making.unlink()
        _sync(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise AuthorityError(f"cannot write {path}: {error.strerror}") from error
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
