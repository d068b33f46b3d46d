"""The first process of a guest: makes an ordinary machine of it, runs one command, tells its status, and ends.

/usr/bin/python3 runs it, with nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

STATUS_PORT = Path("/dev/ttyS1")  # the second serial port: on the first, the kernel has its say too
RESTART = 0x01234567  # reboot(2), LINUX_REBOOT_CMD_RESTART; the emulator ends instead

# Type, place, options; cgroup v2 alone, as Debian 12 has it.
MOUNTS = (
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", ""),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/lib/modules", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
)


def command(root: Path, modules: Path, wanted: Sequence[str]) -> list[str]:
    """What the guest must start for this module to run `wanted` in the repository `root`."""
    return ["/usr/bin/python3", str(Path(__file__)), str(root), str(modules), *wanted]


def main(root: str, modules: str, *wanted: str) -> None:
    for kind, place, options in MOUNTS:
        Path(place).mkdir(exist_ok=True)
        mount("-t", kind, "-o", options or "defaults", kind, place)
    link_modules(Path(modules))
    subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    os.chdir(root)
    end(run(wanted))


def mount(*words: str) -> None:
    subprocess.run(["/usr/bin/mount", *words], check=True)


def link_modules(modules: Path) -> None:
    """Where the kernel looks for modules, and BCC for headers: those of another kernel serve (see deploy/setup.sh)."""
    place = Path("/lib/modules") / modules.name
    place.mkdir()
    for entry in modules.iterdir():
        if entry.name not in ("build", "source"):
            (place / entry.name).symlink_to(entry)
    for name, kind in (("build", "amd64"), ("source", "common")):
        exact = Path(f"/usr/src/linux-headers-{modules.name.removesuffix('-amd64')}-{kind}")
        others = sorted(Path("/usr/src").glob(f"linux-headers-*-{kind}"))
        (place / name).symlink_to(exact if exact.exists() else others[-1])


def run(wanted: Sequence[str]) -> int:
    """Its exit status. On the way, this process buries every orphan, as the first process must."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb", "LANG": "C.UTF-8"}
    try:
        started = subprocess.Popen(wanted, env=environment, stdin=subprocess.DEVNULL)
    except OSError as problem:
        print(problem, flush=True)
        return 127
    while True:
        process, status = os.wait()
        if process == started.pid:
            return os.waitstatus_to_exitcode(status)


def end(status: int) -> None:
    port = os.open(STATUS_PORT, os.O_WRONLY | os.O_NOCTTY)
    os.write(port, f"{status}\n".encode())
    termios.tcdrain(port)
    ctypes.CDLL(None).reboot(RESTART)


if __name__ == "__main__":
    main(*sys.argv[1:])
