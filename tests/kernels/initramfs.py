"""The few files with which a kernel begins: busybox, the modules that reach the root directory, and a script.

The format is cpio's "newc" (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import shlex
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
ROOT_TAG = "ambit-root"
DIRECTORIES = ("bin", "modules", "proc", "dev", "lower", "upper", "root")

# The root directory of the machine below, read-only; what is written stays in memory and is gone with the guest.
# Large requests: each one is an exit from the guest. cache=loose: the guest need not ask again for what it has read.
SCRIPT = """#!/bin/busybox sh
set -e
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose {tag} /lower
/bin/busybox mount -t tmpfs none /upper
/bin/busybox mkdir /upper/changes /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work root /root
exec /bin/busybox switch_root /root {command}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    mode: int
    content: bytes = b""


def build(busybox: Path, modules: Sequence[Path], command: Sequence[str]) -> bytes:
    """An archive whose /init replaces itself by `command`, an absolute path and arguments, in the root directory."""
    names = " ".join(module.name for module in modules)
    script = SCRIPT.format(modules=names, tag=ROOT_TAG, command=shlex.join(command))
    files = [
        Entry("init", stat.S_IFREG | 0o755, script.encode()),
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        *(Entry(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes()) for module in modules),
    ]
    return archive([*(Entry(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES), *files])


def needed_modules(directory: Path, release: str) -> list[Path]:
    """Files of MODULES and of what they depend on, in the order of loading. What is built in needs no file."""
    found: dict[Path, None] = {}
    for module in MODULES:
        listed = subprocess.run(
            ["/usr/sbin/modprobe", "-d", directory, "-S", release, "-C", "/dev/null", "--show-depends", module],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found |= {Path(words[1]): None for words in map(str.split, listed.splitlines()) if words[0] == "insmod"}
    return list(found)


def archive(entries: Iterable[Entry]) -> bytes:
    return b"".join(records([*entries, Entry("TRAILER!!!", 0)]))


def records(entries: Iterable[Entry]) -> Iterator[bytes]:
    for number, entry in enumerate(entries, start=1):
        name = entry.name.encode() + b"\0"
        # inode, mode, uid, gid, links, time, size, device (2), special device (2), length of the name, checksum
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        yield padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        yield padded(entry.content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
