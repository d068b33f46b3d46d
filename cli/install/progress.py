"""Waits for an installation, and shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from cli.errors import fail
from cli.install.cluster import Cluster
from cli.install.readiness import Progress, of_daemon_set, of_deployment, reasons
from cli.output import stderr

LOOK_EVERY = 0.5  # seconds


def wait(cluster: Cluster, timeout: float) -> None:
    """Until all that was installed is ready. Raises CommandFailed with what is not, and why."""
    deadline = time.monotonic() + timeout
    text = TextColumn("{task.description}")
    columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=stderr, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=None) for name in ("controller", "nodes")}
        while True:
            found = look(cluster)
            for each in found:
                bars.update(tasks[each.name], completed=each.ready, total=each.wanted)
            if all(each.done for each in found):
                break
            if time.monotonic() > deadline:
                fail(late(cluster, found, timeout))
            time.sleep(LOOK_EVERY)
    stderr.print(", ".join(f"{each.name}: {each.ready} of {each.wanted} ready" for each in found))


def look(cluster: Cluster) -> Sequence[Progress]:
    daemon_set, deployment = cluster.daemon_set(), cluster.deployment()
    if daemon_set is None or deployment is None:
        fail(f"what helm has installed is gone from namespace {cluster.namespace}: somebody else has removed it")
    return of_deployment(deployment), of_daemon_set(daemon_set)


def late(cluster: Cluster, found: Sequence[Progress], timeout: float) -> str:
    counts = ", ".join(f"{each.ready} of {each.wanted} {each.name}" for each in found if not each.done)
    why = "\n  ".join(reasons(cluster.pods())) or "no pod says why: see kubectl get events"
    return f"not ready after {timeout:g} s: only {counts}\n  {why}"


@contextmanager
def doing(what: str) -> Iterator[None]:
    """A line while something without a measure goes on."""
    with stderr.status(what):
        yield
