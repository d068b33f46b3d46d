"""What the tests bring to the cluster: images of Ambit and programs for pods, built again when a source has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster import build
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("apps")
ARCHIVES = Path("/var/tmp/ambit-images/tests")
IMAGES = ("node", "controller", "waypoint")
KEPT = 3  # states of the sources whose archives stay: 150 MB each
APPS_IMAGE = "localhost/ambit-test/apps"
NOT_HERE = 3  # the exit code of tests.cluster too: tests will skip and say why


class CannotBuild(Exception):
    """One sentence: what is missing here."""


def mesh_archives() -> tuple[str, list[Path]]:
    """Tag and archives of Ambit's images. Raises CannotBuild; CalledProcessError when the build itself fails.

    AMBIT_IMAGES=TAG takes those of an earlier run, whatever the sources are now.
    """
    if tag := os.environ.get("AMBIT_IMAGES"):
        return tag, [ARCHIVES / tag / f"{image}.tar" for image in IMAGES]
    for tool in ("buildah", "mmdebstrap"):
        if not shutil.which(tool):
            raise CannotBuild(f"there is no {tool}: apt-get install --no-install-recommends buildah mmdebstrap")
    tag = f"test-{digest_of(image_sources())}"
    output = ARCHIVES / tag
    archives = [output / f"{image}.tar" for image in IMAGES]
    if not all(archive.exists() for archive in archives):
        builder = (sys.executable, str(ROOT / "deploy/images/build.py"), *IMAGES)
        settings = ("--tag", tag, "--output", str(output))
        subprocess.run((*builder, *settings), check=True, stdout=sys.stderr)
    os.utime(output)
    forget_old()
    return tag, archives


def forget_old() -> None:
    known = sorted(ARCHIVES.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in known[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def image_sources() -> Iterator[Path]:
    """The context of the build, as its ignore file has it, and the recipes."""
    lines = (ROOT / "deploy/images/containerignore").read_text().split("\n")
    left_out = tuple(str(ROOT / line) for line in lines if line and line[0] not in "#!*")
    for line in lines:
        if line.startswith("!"):
            yield from (each for each in files_below(ROOT / line[1:]) if not str(each).startswith(left_out))


def files_below(place: Path) -> Iterator[Path]:
    found = (place,) if place.is_file() else place.rglob("*")
    yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


def digest_of(files: Iterable[Path]) -> str:
    """Of their names below ROOT and their contents, the same in every clone: twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(files):
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def apps_archive() -> tuple[str, Path]:
    """Image name and archive of /traffic, /first and /probe: static programs and nothing else."""
    tag = digest_of([*files_below(APPS), BIN / "probe"])
    name, archive = f"{APPS_IMAGE}:{tag}", BIN.parent / "apps" / f"{tag}.tar"
    if not archive.exists():
        shutil.rmtree(archive.parent, ignore_errors=True)
        archive.parent.mkdir(parents=True)
        programs = {f"/{program}": archive.parent / program for program in ("traffic", "first")}
        compile_go(APPS / "traffic", programs["/traffic"])
        compile_c(APPS / "first.c", programs["/first"])
        make_image(archive, name, ("/traffic",), {**programs, "/probe": BIN / "probe"})
    return name, archive


def compile_go(source: Path, output: Path) -> None:
    compiler = build.go()
    if compiler is None:
        raise CannotBuild(str(build.NoGoError()))
    build.compile_package(compiler, source, ".", output)


def compile_c(source: Path, output: Path) -> None:
    if not shutil.which("gcc"):
        raise CannotBuild("there is no gcc: apt-get install --no-install-recommends gcc libc6-dev")
    subprocess.run(("gcc", "-O2", "-Wall", "-Werror", "-static", "-s", "-o", str(output), str(source)), check=True)


def main() -> int:
    """`python -m tests.kube.artifacts`: before a test run, so that no test's time-out has to allow for it."""
    try:
        mesh_archives()
        apps_archive()
    except CannotBuild as problem:
        print(f"tests/kube: {problem}", file=sys.stderr)
        return NOT_HERE
    except subprocess.CalledProcessError as problem:
        print(f"tests/kube: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
