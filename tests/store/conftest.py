"""An API server for all tests of stores, and the homes that the contract is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import apiserver
from tests.store.homes import DirectoryHome, Home, KubernetesHome


@pytest.fixture(scope="session")
def api_server() -> Iterator[apiserver.Server]:
    if reason := apiserver.missing():
        pytest.skip(reason)
    with apiserver.running() as server:
        yield server


@pytest.fixture
def cluster(api_server: apiserver.Server) -> KubernetesHome:
    return KubernetesHome(api_server)


@pytest.fixture(params=["directory", "kubernetes"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    if request.param == "directory":
        return DirectoryHome(tmp_path / "objects")
    found: Home = request.getfixturevalue("cluster")
    return found
