"""Builds the images of Ambit with buildah: python deploy/images/build.py [node] [waypoint] ... --output DIR.

Without --base the base image is made here with mmdebstrap, so that no registry is needed. Layers are kept in --cache:
after a change of the sources only the last ones are built again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGES = ("node", "controller", "waypoint", "echo")
CACHE = Path("/var/tmp/ambit-images")
LOCAL_BASE = "localhost/ambit-base:bookworm"
# containerd knows an image without a registry by this prefix.
REPOSITORY = "docker.io/ambit/"
# Where this machine describes how packages are reached: proxies, indexes and their certificates. The build uses it as
# it is, and the image gets none of it.
PACKAGE_CONFIGURATION = (
    "/etc/apt/apt.conf.d",
    "/etc/apt/auth.conf.d",
    "/etc/pip.conf",
    "/usr/local/share/ca-certificates",
)
DROPPED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


class BuildFailed(Exception):
    """One sentence."""


@dataclass(frozen=True)
class Builder:
    """Runs buildah on a storage of its own, so that nothing mixes with other images of this machine."""

    cache: Path
    verbose: bool

    def buildah(self, *arguments: str) -> str:
        driver = "overlay" if "overlay" in Path("/proc/filesystems").read_text() else "vfs"
        storage = (
            "--root",
            str(self.cache / "storage"),
            "--runroot",
            str(self.cache / "run"),
            "--storage-driver",
            driver,
        )
        return self.run(("buildah", *storage, *arguments))

    def run(self, command: Sequence[str]) -> str:
        """What the command wrote, unless it was shown. Raises BuildFailed with the end of that."""
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            command,
            env=environment,
            text=True,
            stderr=subprocess.STDOUT,
            stdout=None if self.verbose else subprocess.PIPE,
        )
        if done.returncode:
            raise BuildFailed(f"{command[0]} failed:\n" + "\n".join((done.stdout or "").splitlines()[-25:]))
        return done.stdout or ""

    def identity(self, name: str) -> str:
        return Builder(self.cache, verbose=False).buildah("images", "--quiet", "--no-trunc", name).strip()

    def has_image(self, name: str) -> bool:
        try:
            self.buildah("inspect", "--type", "image", name)
        except BuildFailed:
            return False
        return True


def make_base(builder: Builder) -> None:
    """Debian 12 with no more than apt, as one layer."""
    with tempfile.TemporaryDirectory(dir=builder.cache) as directory:
        archive = Path(directory) / "base.tar"
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in DROPPED]
        builder.run(("mmdebstrap", "--quiet", "--variant=minbase", *options, "bookworm", str(archive)))
        container = f"ambit-base-{os.getpid()}"
        builder.buildah("from", "--name", container, "scratch")
        try:
            builder.buildah("add", "--quiet", container, str(archive), "/")
            builder.buildah("commit", "--quiet", container, LOCAL_BASE)
        finally:
            builder.buildah("rm", container)


def build(builder: Builder, image: str, base: str, tag: str) -> str:
    """Returns the name of what was built."""
    name = f"{REPOSITORY}{image}:{tag}"
    volumes = [f"--volume={path}:{path}:ro" for path in PACKAGE_CONFIGURATION if Path(path).exists()]
    files = ("--file", str(HERE / f"Containerfile.{image}"), "--ignorefile", str(HERE / "containerignore"))
    source = ("--pull-never" if base == LOCAL_BASE else "--pull", "--build-arg", f"BASE={base}")
    builder.buildah("bud", "--layers", *source, *volumes, *files, "--tag", name, str(ROOT))
    return name


def save(builder: Builder, name: str, archive: Path) -> None:
    """Writes over an earlier archive in one step; one of the same image stays."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    note, identity = archive.with_suffix(".id"), f"{builder.identity(name)} {name}"
    if archive.exists() and note.exists() and note.read_text() == identity:
        return
    note.unlink(missing_ok=True)
    fresh = archive.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    builder.buildah("push", "--quiet", name, f"docker-archive:{fresh}:{name}")
    fresh.replace(archive)
    note.write_text(identity)


def require_tools(base: str) -> None:
    for tool in ("buildah", *(() if base else ("mmdebstrap",))):
        if not shutil.which(tool):
            raise BuildFailed(f"there is no {tool}: apt-get install --no-install-recommends buildah mmdebstrap")
    if os.geteuid():
        raise BuildFailed("building needs root: it unpacks Debian packages with their owners")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "build.py", description="Builds Ambit's images as archives that containerd imports."
    )
    parser.add_argument("images", nargs="*", metavar="|".join(IMAGES), help="which; all when none is named")
    parser.add_argument(
        "--base", default="", help="a Debian 12 image to begin with; made with mmdebstrap when not given"
    )
    parser.add_argument("--tag", default="dev")
    parser.add_argument(
        "--output", type=Path, default=CACHE / "archives", help="directory for node.tar, controller.tar, ..."
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="keeps layers from one build to the next")
    parser.add_argument("--verbose", action="store_true", help="show what buildah prints")
    given = parser.parse_args()
    if unknown := set(given.images) - set(IMAGES):
        parser.error(f"there is no image {min(unknown)!r}; there are {', '.join(IMAGES)}")
    return given


def main() -> int:
    given = arguments()
    builder = Builder(given.cache, given.verbose)
    try:
        require_tools(given.base)
        given.cache.mkdir(parents=True, exist_ok=True)
        if not given.base and not builder.has_image(LOCAL_BASE):
            print("making a Debian base image with mmdebstrap (once)", flush=True)
            make_base(builder)
        for image in given.images or IMAGES:
            began = time.monotonic()
            name = build(builder, image, given.base or LOCAL_BASE, given.tag)
            archive = given.output / f"{image}.tar"
            save(builder, name, archive)
            print(
                f"{name} -> {archive} ({archive.stat().st_size / 1e6:.0f} MB, {time.monotonic() - began:.0f} s)",
                flush=True,
            )
    except BuildFailed as problem:
        print(f"build.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
