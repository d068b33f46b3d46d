"""Without helm there is nothing to render."""

from __future__ import annotations

import pytest

from tests.helm import chart


@pytest.fixture(autouse=True)
def _helm() -> None:
    if chart.helm() is None:
        pytest.skip("no helm, neither on PATH nor from `python -m tests.cluster build`")
