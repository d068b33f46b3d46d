"""Runs a command on another kernel: python -m tests.kernels.machine RELEASE COMMAND...

The kernel boots in QEMU over this machine's own root directory, read-only below a layer in memory: the command sees
the same files, interpreters and virtualenv as here, and leaves nothing. There is no network and no other access.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernels import guest, initramfs

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "build" / "kernels"
QEMU = "qemu-system-x86_64"

# Always emulated, so that it works and takes the same path everywhere: many machines have a /dev/kvm that hangs.
# The guest's clock counts instructions, one per 2 ns: it sees a steady machine of 500 MIPS however slow the emulation
# and busy the host, so that no deadline in what it runs is missed for that.
EMULATION = ("-accel", "tcg", "-icount", "shift=1", "-cpu", "max", "-smp", "1", "-m", "2G")
# panic: a kernel that fails ends. mitigations: they cost an emulated processor dear, and root's programs are not under
# them anyway (CAP_PERFMON).
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 mitigations=off"


class NotHere(Exception):
    """Something is missing that `make test-kernels` would install; says what."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel package of a Debian release has, unpacked."""

    directory: Path
    release: str  # as uname says

    @property
    def image(self) -> Path:
        return self.directory / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.directory / "lib" / "modules" / self.release


@dataclass(frozen=True, slots=True)
class Done:
    status: int | None  # the command's exit status; None if the guest never told
    output: str  # of the command, after what the kernel had to say


def find(debian: str) -> Kernel:
    """The kernel of a release of Debian by its name. Raises NotHere."""
    remedy = "`make test-kernels` installs what this needs"
    if shutil.which(QEMU) is None:
        raise NotHere(f"there is no {QEMU}: {remedy}")
    if not busybox().exists():
        raise NotHere(f"there is no {busybox()}: {remedy}")
    found = sorted((KERNELS / debian / "boot").glob("vmlinuz-*"))
    if not found:
        raise NotHere(f"there is no kernel of Debian {debian} below {KERNELS}: {remedy}")
    return Kernel(KERNELS / debian, found[-1].name.removeprefix("vmlinuz-"))


def busybox() -> Path:
    return KERNELS / "busybox" / "bin" / "busybox"


def run(kernel: Kernel, command: Sequence[str], timeout: float, echo: bool = False) -> Done:
    """Boots, runs the command in the repository as root, and powers off. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="ambit-test-") as scratch:
        start, status = Path(scratch) / "initramfs", Path(scratch) / "status"
        modules = initramfs.needed_modules(kernel.directory, kernel.release)
        start.write_bytes(initramfs.build(busybox(), modules, guest.command(ROOT, kernel.modules, command)))
        done = subprocess.run(
            emulator(kernel, start, status),
            stdin=subprocess.DEVNULL,
            stdout=None if echo else subprocess.PIPE,
            stderr=None if echo else subprocess.STDOUT,
            timeout=timeout,  # it kills the emulator, and that is all there is
            check=False,
        )
        told = status.read_text().strip() if status.exists() else ""
    output = (done.stdout or b"").decode(errors="replace").replace("\r\n", "\n")
    return Done(int(told) if told else None, output)


def emulator(kernel: Kernel, start: Path, status: Path) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", QEMU),  # a test run that is killed takes its guest along
        *EMULATION,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-serial", "stdio", "-serial", f"file:{status}"),
        *("-kernel", str(kernel.image), "-initrd", str(start), "-append", KERNEL_WORDS),
        *("-virtfs", f"local,path=/,mount_tag={initramfs.ROOT_TAG},security_model=none,readonly=on,multidevs=remap"),
    ]


def main(words: Sequence[str]) -> int:
    if len(words) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    try:
        kernel = find(words[0])
    except NotHere as problem:
        print(f"kernels: {problem}", file=sys.stderr)
        return 69
    status = run(kernel, words[1:], timeout=3600, echo=True).status
    return 70 if status is None else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
