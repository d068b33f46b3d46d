"""One YAML file per object, made to be read and edited by people:

    ROOT/pods/shop/web-1.yaml    ROOT/deployments.apps/shop/web.yaml    ROOT/namespaces/_cluster/shop.yaml

A file appears complete or not at all (temporary file, fsync, rename). Writers in all processes take turns (flock). A
file that was edited into something that cannot be used is a problem of its own: the last good object stays.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.store import kinds
from controller.store.interface import Key, Kind, NotFound, Object, StoreError
from controller.store.manifest import ManifestError, parse

log = logging.getLogger("store")

CLUSTER = "_cluster"  # where objects without a namespace are: no namespace can have this name
SUFFIX = ".yaml"
LOCK = ".lock"  # its content is the last resourceVersion
LOCK_PATIENCE = 10.0  # seconds; a write takes milliseconds, so a longer wait means a stopped process

# A file changed this short before it was read may change again without a visible sign: timestamps are this coarse
# (one jiffy at CONFIG_HZ=100, twice over). Git calls such an entry racily clean.
CLOCK_STEP_NS = 20_000_000

# A file made by hand has no uid until the store first writes it; until then its path is what identifies it.
_UID_OF_PATHS = uuid.UUID("5c1d66c8-1c3b-4a83-9d42-02a3a0b8a3b5")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one file: its last good object, and what is wrong with it now ("" nothing)."""

    signature: tuple[int, ...]
    read_at: int
    good: Object | None
    problem: str


class ObjectFiles:
    """Reads and writes the files below a directory. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[Path, dict[str, Entry]] = {}  # by directory, then file name
        self._mutex = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the store directory {root}: {error.strerror}") from None

    # --- places

    def kind_directory(self, kind: Kind) -> Path:
        return self.root / (f"{kind.plural}.{kind.group}" if kind.group else kind.plural)

    def path(self, key: Key) -> Path:
        """Raises NotFound for names that no object can have, so that no name leads out of the directory."""
        if "/" in key.name + key.namespace or key.name.startswith(".") or key.namespace.startswith("."):
            raise NotFound(f"there is no {key}")
        return self.kind_directory(kinds.named(key.kind)) / (key.namespace or CLUSTER) / f"{key.name}{SUFFIX}"

    def directories(self, kind: Kind, namespace: str = "") -> list[Path]:
        """Those that hold objects of a kind. Raises StoreError when the store itself is gone."""
        if namespace:
            return [self.kind_directory(kind) / namespace]
        try:
            with os.scandir(self.kind_directory(kind)) as found:
                return sorted(Path(each.path) for each in found if each.is_dir() and not each.name.startswith("."))
        except FileNotFoundError:
            self.require_root()
            return []

    def require_root(self) -> None:
        """A store that vanished is not an empty one: taking it for empty would take the mesh down."""
        if not self.root.is_dir():
            raise StoreError(f"the store directory {self.root} is gone")

    def names(self, directory: Path) -> list[str]:
        """File names of the objects in a directory; what is known of others is forgotten."""
        try:
            found = sorted(name for name in os.listdir(directory) if is_object_file(name))
        except (FileNotFoundError, NotADirectoryError):
            found = []
        with self._mutex:
            known = self._entries.get(directory, {})
            for name in known.keys() - set(found):
                del known[name]
        return found

    # --- reading

    def load(self, path: Path) -> Entry | None:
        """None when there is no such file. A problem is logged once."""
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                before = self._entries.get(path.parent, {}).get(path.name)
                if before and before.signature == signature and before.read_at - status.st_ctime_ns > CLOCK_STEP_NS:
                    return before
                read_at, content = time.time_ns(), file.read()
        except (FileNotFoundError, NotADirectoryError):
            self._remember(path, None)
            return None
        except OSError as error:
            return Entry((), 0, None, f"{path}: {error.strerror}")
        entry = self._interpret(path, content, signature, read_at, before.good if before else None)
        if entry.problem and (before is None or before.problem != entry.problem):
            log.warning("%s", entry.problem)
        self._remember(path, entry)
        return entry

    def _interpret(
        self, path: Path, content: bytes, signature: tuple[int, ...], read_at: int, last: Object | None
    ) -> Entry:
        try:
            return Entry(signature, read_at, _object_of(path, content), "")
        except UnicodeDecodeError:
            problem = f"{path}: is not UTF-8 text"
        except ManifestError as error:
            problem = error.problems[0]
        except StoreError as error:
            problem = str(error)
        return Entry(signature, read_at, last, problem)

    def _remember(self, path: Path, entry: Entry | None) -> None:
        with self._mutex:
            known = self._entries.setdefault(path.parent, {})
            if entry is None:
                known.pop(path.name, None)
            else:
                known[path.name] = entry

    def strangers(self) -> Iterator[str]:
        """Files and directories that are no objects and look as if somebody meant them to be."""
        directories = {self.kind_directory(kind): kind for kind in kinds.KINDS}
        for entry in _visible(self.root):
            if entry not in directories:
                yield f"{entry}: is not read (no kind has this directory)"
        for directory in directories:
            for place in _visible(directory):
                if not place.is_dir():
                    yield f"{place}: is not read (objects are in {directory.name}/NAMESPACE/NAME{SUFFIX})"
                for file in _visible(place):
                    if not is_object_file(file.name):
                        yield f"{file}: is not read (objects are in files NAME{SUFFIX})"

    # --- writing

    @contextmanager
    def locked(self) -> Iterator[Versions]:
        """Keeps all other writers out, in this and in other processes. Raises StoreError."""
        self.require_root()
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait_for_turn(descriptor)
            yield Versions(descriptor)
        finally:
            os.close(descriptor)

    def _wait_for_turn(self, descriptor: int) -> None:
        deadline, pause = time.monotonic() + LOCK_PATIENCE, 0.001
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"another process holds {self.root / LOCK} and does not let go") from None
            time.sleep(pause)
            pause = min(2 * pause, 0.02)

    def write(self, path: Path, obj: Object) -> None:
        """Atomic. Raises StoreError."""
        text = yaml.dump(obj, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    os.fchmod(descriptor, 0o644)
                    file.write(text)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from None

    def remove(self, path: Path) -> None:
        """Raises FileNotFoundError, StoreError."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot delete {path}: {error.strerror}") from None


class Versions:
    """Counts the writes of a store, in the lock file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def next(self) -> int:
        text = os.pread(self._descriptor, 32, 0).strip()
        version = int(text) + 1 if text.isdigit() else 1
        os.pwrite(self._descriptor, b"%d\n" % version, 0)
        return version


class _Dumper(yaml.CSafeDumper):
    """Text of several lines as a block, so that it can be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def is_object_file(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _visible(directory: Path) -> list[Path]:
    """Without hidden files and what editors leave behind."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.name[-1] not in "~#")


def _object_of(path: Path, content: bytes) -> dict[str, Any]:
    """Raises ManifestError, StoreError, UnicodeDecodeError."""
    namespace = "" if path.parent.name == CLUSTER else path.parent.name
    found = parse(content.decode(), str(path), namespace or kinds.DEFAULT_NAMESPACE)
    if len(found) != 1:
        raise StoreError(f"{path}: holds {len(found) or 'no'} objects; one file holds one")
    obj = found[0]
    key, directory = kinds.key_of(obj), path.parent.parent.name
    kind = kinds.named(key.kind)
    if directory != (f"{kind.plural}.{kind.group}" if kind.group else kind.plural):
        raise StoreError(f"{path}: holds a {key.kind}, which does not belong in {directory}")
    if (key.namespace, key.name) != (namespace, path.name.removesuffix(SUFFIX)):
        raise StoreError(f"{path}: holds {key}, which does not belong in this file")
    obj["metadata"].setdefault("uid", str(uuid.uuid5(_UID_OF_PATHS, f"{kind.api_version} {key}")))
    return obj
