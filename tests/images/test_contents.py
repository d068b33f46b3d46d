"""What the images would have, read from the sources: every import is satisfied, no version is given twice."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.images import requirements

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
OURS = ("mesh", "ebpf", "ztunnel", "controller", "waypoint", "deploy", "cli")
# Packages whose modules have another name.
MODULES = {
    "google-re2": "re2",
    "grpcio": "grpc",
    "prometheus-client": "prometheus_client",
    "protobuf": "google",
    "pyyaml": "yaml",
    "pyjwt": "jwt",
}
SYSTEM = {"bcc", "urllib3"}  # Debian's, for /usr/bin/python3; a part of the kubernetes package's own interface
TOOLS = {"mesh/wire/generate.py"}  # runs on a developer's machine


def copied(image: str) -> list[Path]:
    """What the Containerfile takes from the repository, in Python."""
    lines = re.findall(
        r"^COPY (?!--from)(.+) /opt/ambit/lib/\S+$", (IMAGES / f"Containerfile.{image}").read_text(), re.M
    )
    return [ROOT / source for line in lines for source in line.split()]


def files(image: str) -> Iterator[Path]:
    for place in copied(image):
        yield from place.rglob("*.py") if place.is_dir() else [place]


def imports(image: str) -> dict[str, Path]:
    """Full names of modules, and a file that imports each."""
    found: dict[str, Path] = {}
    for file in files(image):
        if str(file.relative_to(ROOT)) in TOOLS:
            continue
        for each in ast.walk(ast.parse(file.read_text())):
            if isinstance(each, ast.Import):
                found |= {alias.name: file for alias in each.names}
            elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
                found[each.module] = file
    return found


@pytest.mark.parametrize("image", requirements.IMAGES)
def test_every_package_that_an_image_imports_is_installed_into_it(image: str) -> None:
    installed = {MODULES.get(name, name) for name in requirements.IMAGES[image]} | SYSTEM | set(OURS)
    missing = {name: file for name, file in imports(image).items() if name.partition(".")[0] not in installed}
    assert {name: file for name, file in missing.items() if name.partition(".")[0] not in sys.stdlib_module_names} == {}


@pytest.mark.parametrize("image", requirements.IMAGES)
def test_every_module_of_ours_that_an_image_imports_is_copied_into_it(image: str) -> None:
    present = {file.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__") for file in files(image)}
    packages = {parent for name in present for parent in map(str, Path(name).parents)}
    ours = {name for name in imports(image) if name.partition(".")[0] in OURS}
    assert {name for name in ours if name.replace(".", "/") not in present | packages} == set()


@pytest.mark.parametrize("image", requirements.IMAGES)
def test_what_is_installed_has_the_ranges_of_the_project(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = requirements.chosen(project, image)
    assert sorted(map(requirements.name_of, found)) == sorted(requirements.IMAGES[image])
    assert set(found) <= set(project["project"]["dependencies"])


def test_the_byte_path_is_compiled_with_the_projects_own_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for stage, wanted in requirements.STAGES.items():
        assert sorted(map(requirements.name_of, requirements.chosen(project, stage))) == sorted(wanted)


@pytest.mark.parametrize("image", ["controller", "waypoint"])
def test_it_runs_as_nobody_special(image: str) -> None:
    assert re.search(r"^USER ([1-9]\d*):", (IMAGES / f"Containerfile.{image}").read_text(), re.M)
