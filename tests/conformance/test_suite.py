"""The core tests of the upstream suite, on a real cluster; all of them: `make conformance`."""

from __future__ import annotations

import pytest

from tests.cluster.fixture import running, unusable
from tests.conformance import artifacts, place, suite
from tests.conformance.__main__ import CLUSTER
from tests.kube.artifacts import CannotBuild

LOG = """\
=== RUN   TestMesh
=== RUN   TestMesh/MeshBasic
=== RUN   TestMesh/MeshFrontend
    apply.go:304: creating MeshFrontend HTTPRoute
    pod.go:125: Error Trace: the header is not there
--- FAIL: TestMesh (3.00s)
    --- PASS: TestMesh/MeshBasic (1.00s)
    --- FAIL: TestMesh/MeshFrontend (2.00s)
        --- FAIL: TestMesh/MeshFrontend/Send_to_service (2.00s)
    --- SKIP: TestMesh/GatewayModifyListeners (0.00s)
"""


def test_what_the_suite_wrote_is_told_test_by_test() -> None:
    found = suite.outcome(LOG)
    assert (found.passed, found.skipped) == (("MeshBasic",), ("GatewayModifyListeners",))
    assert "the header is not there" in found.failed["MeshFrontend"]
    assert set(found.failed) == {"MeshFrontend"}


@pytest.mark.root
@pytest.mark.timeout(1800)  # seconds: the first time builds images; only a hang is a failure
def test_the_core_tests_pass() -> None:
    if reason := unusable():
        pytest.skip(reason)
    if not artifacts.built():
        pytest.skip("run `python -m tests.conformance.artifacts` first: it compiles the suite")
    try:
        with running(CLUSTER, nodes=2, dual_stack=True) as cluster, place.prepared(cluster):
            found = suite.run(cluster.kubeconfig, place.LABELS, suite.CORE)
    except CannotBuild as problem:
        pytest.skip(str(problem))
    assert found.failed == {}
    assert {
        "MeshBasic",
        "MeshFrontend",
        "MeshPorts",
        "MeshTrafficSplit",
        "MeshHTTPRouteMatching",
        "MeshGRPCRouteWeight",
    } <= set(found.passed)
