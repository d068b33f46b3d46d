"""Runs the upstream suite of Gateway API as it is, and says what each of its tests came to."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.conformance import artifacts

PROFILES = ("MESH-HTTP", "MESH-GRPC")
# Without extended features of a mesh; of routes those without which the tests of frontends and ports do not run.
CORE = ("Mesh", "HTTPRouteParentRefPort", "HTTPRouteResponseHeaderModification")
# All extended features of a mesh (pkg/features/mesh.go), and what further mesh tests ask for before they run.
FEATURES = (
    *CORE,
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
)
IMPLEMENTATION = {
    "organization": "ambit",
    "project": "ambit",
    "url": "https://ambit.io",
    "version": version("ambit"),
    "contact": "https://ambit.io",
}
RESULT = re.compile(r"^    --- (PASS|FAIL|SKIP): TestMesh/(\S+)", re.M)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`failed` has what each failed test said; `log` is all that the suite wrote."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]
    log: str = field(repr=False)


def run(
    kubeconfig: Path,
    labels: Mapping[str, str],
    features: Sequence[str] = FEATURES,
    test: str = "",
    report: Path | None = None,
) -> Outcome:
    """All tests of these features, or one. `labels` are those of the suite's own namespaces."""
    flags = {
        "conformance-profiles": ",".join(PROFILES),
        "supported-features": ",".join(features),
        "namespace-labels": ",".join(f"{name}={value}" for name, value in labels.items()),
        "cleanup-base-resources": "false",
        "run-test": test,
        "report-output": str(report.absolute()) if report else "",
        **IMPLEMENTATION,
    }
    command = (str(artifacts.suite()), "-test.v", "-test.run=TestMesh", "-test.timeout=60m")
    given = (f"--{name}={value}" for name, value in flags.items() if value)
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    done = subprocess.run(
        (*command, *given), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return outcome(done.stdout)


def outcome(log: str) -> Outcome:
    """Of what `go test -v` wrote."""
    found = {
        result: [name for each, name in RESULT.findall(log) if each == result] for result in ("PASS", "FAIL", "SKIP")
    }
    failed = {name: said_by(name, log) for name in found["FAIL"]}
    return Outcome(tuple(found["PASS"]), tuple(found["SKIP"]), failed, log)


def said_by(test: str, log: str) -> str:
    """The last words of a failed test: what was not as expected."""
    lines = log.split(f"=== RUN   TestMesh/{test}\n", 1)[-1].splitlines()
    return "\n".join(_interesting(lines)[-12:])


def _interesting(lines: Iterable[str]) -> list[str]:
    words = ("Error", "error", "FAIL", "expected", "not ")
    return [line.strip() for line in lines if any(word in line for word in words)]
