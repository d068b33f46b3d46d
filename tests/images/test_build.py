"""The images as built: those that the tests on the cluster run too."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.kube.artifacts import ROOT, CannotBuild, mesh_archives

BUILD = ROOT / "deploy/images/build.py"
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]  # seconds: a first build takes minutes


@pytest.fixture(scope="module")
def archives() -> Path:
    """A directory; the images of a running mesh are built by whoever needs them first, the examples' one here."""
    try:
        tag, (archive, *_) = mesh_archives()
    except CannotBuild as problem:
        pytest.skip(str(problem))
    echo = ("echo", "--tag", tag, "--output", str(archive.parent))
    built = subprocess.run((sys.executable, BUILD, *echo), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return archive.parent


def opened(archive: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """An image's configuration, and its files with their sizes."""
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(outer.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        found: dict[str, int] = {}
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                found |= {each.name: each.size for each in inner}
    return config["config"], found


@pytest.mark.parametrize("image", ["node", "controller", "waypoint"])
def test_an_image_has_no_installer_and_no_compiler(archives: Path, image: str) -> None:
    _, files = opened(archives / f"{image}.tar")
    names = {Path(name).name for name in files if name.startswith(("usr/bin/", "opt/ambit/venv/bin/"))}
    assert not names & {"pip", "pip3", "gcc", "cc", "make"}
    assert not [name for name in files if "/site-packages/pip/" in name or name.startswith("usr/share/doc/python")]


@pytest.mark.parametrize("image", ["controller", "waypoint"])
def test_it_is_no_root_and_has_no_bcc(archives: Path, image: str) -> None:
    config, files = opened(archives / f"{image}.tar")
    assert config["User"] == "65532:65532"
    assert not [name for name in files if "libbcc" in name or "/ebpf/" in name]


def test_the_node_has_loader_headers_and_plugin(archives: Path) -> None:
    _, files = opened(archives / "node.tar")
    assert "opt/ambit/headers/include/uapi/linux/bpf.h" in files
    assert files["opt/ambit/cni/ambit-cni"] < 2_000_000
    assert "opt/ambit/lib/deploy/uninstall.py" in files
    assert not [name for name in files if name.startswith("opt/ambit/lib/cli")]


def test_the_node_has_its_byte_path_compiled_and_no_compiler(archives: Path) -> None:
    _, files = opened(archives / "node.tar")
    compiled = "opt/ambit/lib/build/compiled/"
    assert f"{compiled}fingerprint" in files
    assert [name for name in files if name.startswith(f"{compiled}ztunnel/worker/") and name.endswith(".so")]
    assert not [name for name in files if "/site-packages/mypyc/" in name]


def test_the_app_of_the_examples_is_there(archives: Path) -> None:
    config, files = opened(archives / "echo.tar")
    assert "echo.py" in files
    assert config["User"] == "65532:65532"
