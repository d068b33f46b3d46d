"""Files of a directory that others read and write at the same time: changed whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".ambit-cni."  # hidden, and without an extension that runtimes read
RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100
READ_LIMIT = 1 << 20  # bytes; a configuration has a few thousand
MOST_ROUNDS = 1000  # each needs someone else who writes within a millisecond; then their text stays, without our edit

_libc = ctypes.CDLL(None, use_errno=True)


class Unsettled(OSError):
    """Someone else writes the file all the time."""


def read(path: Path) -> str:
    """Raises OSError; ValueError: it is not UTF-8 or larger than any configuration."""
    with path.open("rb") as file:
        content = file.read(READ_LIMIT + 1)
    if len(content) > READ_LIMIT:
        raise ValueError(f"it has more than {READ_LIMIT} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


def change(path: Path, edit: Callable[[str], str]) -> bool:
    """Replaces the text of the file by what `edit` makes of it; False: it is the same. Owner and mode stay.

    What another process writes meanwhile is not lost: the new file is exchanged with the old one, and when the old one
    turns out to be another than was read, `edit` gets that one. Raises OSError, ValueError and what `edit` raises.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    text = expected = read(path)
    if edit(text) == text:
        return False
    for _ in range(MOST_ROUNDS):
        written = edit(text)
        with _temporary(path, written.encode(), os.stat(path)) as new:
            text = _swap(new, path, expected, edit)
        if text == expected:
            _sync_directory(path.parent)
            return True
        expected = written
    with _temporary(path, text.encode(), os.stat(path)) as new:
        new.replace(path)
    raise Unsettled(errno.EAGAIN, "another process rewrites it all the time", str(path))


def _swap(new: Path, path: Path, expected: str, edit: Callable[[str], str]) -> str:
    """The new file takes the place of the old one, whose text is returned. One that cannot be edited is put back."""
    ours = new.read_bytes()
    if not _exchange(new, path):
        new.replace(path)
        return expected
    try:
        displaced = read(new)
        if displaced != expected:
            edit(displaced)
    except Exception:  # whoever writes it is not through yet
        _exchange(new, path)
        if new.read_bytes() != ours:
            _exchange(new, path)  # they have replaced it since: the last that they wrote stays
        raise
    return displaced


def put(path: Path, content: bytes, mode: int) -> bool:
    """The file has this content and mode; False: it has them already. Raises OSError."""
    if _is(path, content, mode):
        return False
    with _temporary(path, content) as new:
        new.chmod(mode)
        new.replace(path)
    _sync_directory(path.parent)
    return True


def remove(path: Path) -> bool:
    """False: there was none. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_directory(path.parent)
    return True


def sweep(directory: Path) -> None:
    """Removes what an installer that was killed has left. Raises OSError."""
    for left in directory.glob(TEMPORARY + "*"):
        left.unlink(missing_ok=True)


def _is(path: Path, content: bytes, mode: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mode & 0o7777 == mode and file.read(len(content) + 1) == content
    except FileNotFoundError:
        return False


@contextmanager
def _temporary(path: Path, content: bytes, like: os.stat_result | None = None) -> Iterator[Path]:
    """A file beside `path`, on disk for good, that is gone afterwards unless it has been renamed."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            if like is not None:
                _give(handle, like.st_uid, like.st_gid)
                os.fchmod(handle, like.st_mode & 0o7777)
            file.flush()
            os.fsync(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _give(handle: int, user: int, group: int) -> None:
    try:
        os.fchown(handle, user, group)
    except PermissionError:
        pass  # the installer may run without CAP_CHOWN: then the file is root's, and everyone may read it who could


def _exchange(one: Path, other: Path) -> bool:
    """False: this file system cannot. Raises OSError."""
    if _libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
