"""The real binaries, compiled once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.cni.install import Installer
from tests.cni.plugin import Plugin

SOURCES = Path(__file__).parents[2] / "deploy" / "cni"


def compiled(target: str, out: Path) -> Path:
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("the CNI plugin needs make and a C compiler (Debian: make gcc libc6-dev)")
    made = subprocess.run(
        ["make", "-s", "-C", SOURCES, target, f"OUT={out}"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("all", tmp_path_factory.mktemp("cni") / "ambit-cni")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("sanitized", tmp_path_factory.mktemp("cni") / "ambit-cni-sanitized")


@pytest.fixture
def plugin(binary: Path, tmp_path: Path) -> Plugin:
    return Plugin(binary, tmp_path / "cni.sock", tmp_path / "enrolled-namespaces")


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    conf_dir, bin_dir, binary = tmp_path / "net.d", tmp_path / "bin", tmp_path / "built"
    conf_dir.mkdir()
    bin_dir.mkdir()
    binary.write_bytes(b"\x7fELF one")
    return Installer(conf_dir, bin_dir, binary=binary)
