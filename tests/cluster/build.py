"""Compile what no package brings, once, into the cache; install the packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.plan import BIN, CACHE
from tests.cluster.record import locked
from tests.cluster.versions import PACKAGES, PROGRAMS, Program

Say = Callable[[str], None]


class NoGoError(RuntimeError):
    """There is no Go toolchain; tests skip with this sentence."""

    def __init__(self) -> None:
        super().__init__(
            "the test cluster compiles Kubernetes and there is no Go toolchain: put `go` 1.24 or later in PATH"
        )


def build(say: Say) -> None:
    """Whatever is missing or out of date. Raises NoGoError, or CalledProcessError when a compilation fails."""
    install_packages(say)
    with locked(CACHE / "lock", block=True):
        for program in PROGRAMS:
            if not current(program):
                _compile(program, say)


def built() -> bool:
    return not missing_packages() and all(current(program) for program in PROGRAMS)


def current(program: Program) -> bool:
    stamp = CACHE / "stamps" / program.name
    names = (program.name, *program.links)
    return stamp.exists() and stamp.read_text() == _identity(program) and all((BIN / name).exists() for name in names)


def _identity(program: Program) -> str:
    digest = hashlib.sha256(repr((program.package, program.variables, program.links)).encode())
    for file in sorted(path for path in program.source.iterdir() if path.suffix in (".go", ".mod", ".sum")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _compile(program: Program, say: Say) -> None:
    compiler = go()
    if compiler is None:
        raise NoGoError
    say(f"compiling {program.title}: {program.duration}, then cached in {CACHE}")
    began = time.monotonic()
    BIN.mkdir(parents=True, exist_ok=True)
    compile_package(compiler, program.source, program.package, BIN / program.name, program.variables)
    for name in program.links:
        (BIN / name).unlink(missing_ok=True)
        (BIN / name).symlink_to(program.name)
    (CACHE / "stamps").mkdir(exist_ok=True)
    (CACHE / "stamps" / program.name).write_text(_identity(program))
    say(f"compiled {program.title} in {time.monotonic() - began:.0f} s")


def compile_package(compiler: str, source: Path, package: str, output: Path, variables: Sequence[str] = ()) -> None:
    """A static program. Raises CalledProcessError."""
    flags = " ".join(["-s", "-w", *(f"-X {variable}" for variable in variables)])
    options = ("-trimpath", "-buildvcs=false", "-modcacherw", "-ldflags", flags)
    command = (compiler, "build", *options, "-o", str(output), package)
    subprocess.run(command, cwd=source, env=environment(), check=True)


def go() -> str | None:
    """The Go tool's path; where its own installation guide puts it counts too."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def environment() -> dict[str, str]:
    """Modules and objects are cached with the programs, so that one directory is all there is to remove."""
    caches = {"GOCACHE": str(CACHE / "go-build"), "GOMODCACHE": str(CACHE / "go-mod")}
    return os.environ | caches | {"CGO_ENABLED": "0", "GOFLAGS": ""}


def missing_packages() -> list[str]:
    return [package for package, file in PACKAGES.items() if not Path(file).exists()]


def install_packages(say: Say) -> None:
    """With apt-get, as root. Raises CalledProcessError."""
    missing = missing_packages()
    if missing:
        say(f"installing {' '.join(missing)}")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        command = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
            subprocess.run(("apt-get", "update", "-qq"), check=True)
            subprocess.run(command, env=environment, check=True)
