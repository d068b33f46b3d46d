"""The images as built: set AMBIT_BUILD_IMAGES=1 where buildah and mmdebstrap are (a first build takes minutes)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif("AMBIT_BUILD_IMAGES" not in os.environ, reason="AMBIT_BUILD_IMAGES=1 builds the images"),
    pytest.mark.skipif(not shutil.which("buildah"), reason="there is no buildah"),
]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("images")
    build = [sys.executable, str(ROOT / "deploy/images/build.py"), "--tag", "ambit-test", "--output", str(output)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output


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


@pytest.mark.parametrize("image", ["node", "controller"])
def test_an_image_has_no_installer_and_no_compiler(archives: Path, image: str) -> None:
    _, files = opened(archives / f"{image}.tar")
    names = {Path(name).name for name in files if name.startswith(("usr/bin/", "opt/ambit/venv/bin/"))}
    assert not names & {"pip", "pip3", "gcc", "cc", "make"}
    assert not [name for name in files if "/site-packages/pip/" in name or name.startswith("usr/share/doc/python")]


def test_the_controller_is_no_root_and_has_no_bcc(archives: Path) -> None:
    config, files = opened(archives / "controller.tar")
    assert config["User"] == "65532:65532"
    assert not [name for name in files if "libbcc" in name or "/ebpf/" in name]


def test_the_node_has_loader_headers_and_plugin(archives: Path) -> None:
    _, files = opened(archives / "node.tar")
    assert "opt/ambit/headers/include/uapi/linux/bpf.h" in files
    assert files["opt/ambit/cni/ambit-cni"] < 2_000_000
    assert "opt/ambit/lib/deploy/uninstall.py" in files
    assert not [name for name in files if name.startswith("opt/ambit/lib/cli")]
