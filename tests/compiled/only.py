"""A pytest plug-in for the pass on the compiled copy: without it that pass could run the sources and prove nothing."""

from __future__ import annotations

import pytest

import mesh.hbone.reader


def pytest_configure() -> None:
    if not mesh.hbone.reader.__file__.endswith(".so"):
        raise pytest.UsageError(f"not compiled: {mesh.hbone.reader.__file__} (make setup compiles it)")
