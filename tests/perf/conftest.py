import subprocess

import pytest

from perf.bench.testbed import LOAD


@pytest.fixture(scope="session")
def load_program() -> None:
    """As `make bench` builds it."""
    subprocess.run(["make", "--quiet", "perf/build/load"], cwd=LOAD.parents[2], check=True)
