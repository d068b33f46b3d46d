"""`python -m tests.conformance`: the upstream suite against Ambit on a cluster of its own; exit code 0 when all passes.

The report of a whole run goes to docs/conformance; `--run-test NAME` runs one test and writes none, `--keep` leaves the
cluster up for the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.cluster.fixture import running, unusable
from tests.conformance import artifacts, place, suite
from tests.kube.artifacts import CannotBuild

CLUSTER = "conformance"
REPORTS = Path(__file__).parents[2] / "docs" / "conformance"
NOT_HERE = 3  # as of tests.cluster


def main() -> int:
    parser = argparse.ArgumentParser("tests.conformance", description="Runs the upstream suite of Gateway API.")
    parser.add_argument("--run-test", default="", metavar="NAME", help="only this one, such as MeshFrontend; no report")
    parser.add_argument("--log", type=Path, default=Path("build/conformance.log"), help="all that the suite writes")
    parser.add_argument("--keep", action="store_true", help="leave the cluster and what is on it")
    given = parser.parse_args()
    if given.keep:
        os.environ["AMBIT_CLUSTER"] = "keep"
    try:
        if reason := unusable():
            raise CannotBuild(reason)
        return tell(conduct(given.run_test, given.keep), given.log)
    except CannotBuild as problem:
        print(f"conformance: not run: {problem}", file=sys.stderr)
        return NOT_HERE


def conduct(test: str, keep: bool) -> suite.Outcome:
    report = None if test else REPORTS / f"{artifacts.version()}-report.yaml"
    REPORTS.mkdir(exist_ok=True)
    with running(CLUSTER, nodes=2, dual_stack=True) as cluster, place.prepared(cluster, keep=keep):
        print(f"conformance: Gateway API {artifacts.version()}, {', '.join(suite.PROFILES)}", flush=True)
        return suite.run(cluster.kubeconfig, place.LABELS, test=test, report=report)


def tell(outcome: suite.Outcome, log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(outcome.log)
    for name in outcome.passed:
        print(f"passed  {name}")
    for name, said in outcome.failed.items():
        print(f"FAILED  {name}\n        " + said.replace("\n", "\n        "))
    print(f"conformance: {len(outcome.passed)} passed, {len(outcome.failed)} failed; {log}")
    return 0 if outcome.passed and not outcome.failed else 1


if __name__ == "__main__":
    sys.exit(main())
