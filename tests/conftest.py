"""For all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.kube.fixture import on_kubernetes
from tests.sweep import sweep

__all__ = ["on_kubernetes"]


# How long an example takes says nothing of the code on a machine that does other things too.
settings.register_profile("ambit", deadline=None)
settings.load_profile("ambit")


def pytest_sessionstart(session: pytest.Session) -> None:
    if os.geteuid() == 0:
        sweep()
