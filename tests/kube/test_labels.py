"""The label of a namespace, to and fro, while everybody works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mesh.model.enrolment import AMBIENT
from tests.kube import pods
from tests.kube.installed import KubeMesh, until
from tests.kube.underlay import Clear

QUIET = 300_000_000  # nanoseconds: ten dials of each client
REQUESTS = 10_000
MARKER = "line-in-clear"
DIALLED = MARKER.encode() + rb" (kept|fresh) (\d{19}) \d+\n"


@dataclass(frozen=True)
class Shop:
    """A client on one node, a server on the other, both in a namespace that can be labelled; a client beside it."""

    namespace: str
    beside: str
    server: str
    service: str


@pytest.fixture
def shop(mesh: KubeMesh) -> Iterator[Shop]:
    one, other = mesh.nodes
    with mesh.namespace("shop") as namespace, mesh.namespace("beside") as beside:
        mesh.apply(
            pods.manifest(
                pods.idle(namespace, "client", one),
                pods.server(namespace, "server", other),
                pods.service(namespace, "server"),
                pods.idle(beside, "client", one),
            )
        )
        for each in (namespace, beside):
            mesh.wait_ready(each)
        server, service = mesh.addresses(f"{namespace}/server")[0], mesh.service_addresses(f"{namespace}/server")[0]
        once = ("/traffic", "load", f"{service}:{pods.PORT}", "kube-proxy", "0", "1", "1")
        until(lambda: '"good":1' in mesh.exec(f"{namespace}/client", *once), "kube-proxy knows the service")
        yield Shop(namespace, beside, server, service)


@pytest.mark.parametrize("toggles", [20, pytest.param(200, marks=pytest.mark.long)])
def test_toggling_under_load_fails_no_request(mesh: KubeMesh, shop: Shop, toggles: int) -> None:
    """And what is dialled between two enrolled pods cannot be read where the nodes meet, once the client's node has
    heard of the other: the annotation is how it hears."""
    containers = _containers(mesh, shop)
    with mesh.sniff(DIALLED) as clear:
        loads = [
            mesh.load(f"{shop.namespace}/client", shop.service, pods.PORT, MARKER, kept=2, fresh=2),
            mesh.load(f"{shop.namespace}/client", shop.server, pods.PORT, MARKER, kept=2, fresh=2),
            mesh.load(f"{shop.beside}/client", shop.service, pods.PORT, "from-beside", kept=2, fresh=2),
        ]
        lags = [_toggle(mesh, shop, clear, number % 2 == 0) for number in range(toggles)]
        results = [load.finish() for load in loads]
    made = [result["good"] for result in results]
    print(f"requests {made}, slowest {max(result['slowest'] for result in results):.2f} s")
    print("ms from annotations to the last dial in clear:", [round(lag) for lag in lags[::2]])
    assert [result["bad"] for result in results] == [{}, {}, {}], [result["failures"] for result in results]
    assert sum(made) >= REQUESTS
    assert clear.found, "the search found nothing while nobody was enrolled"
    assert clear.missed == 0
    assert _containers(mesh, shop) == containers


def _toggle(mesh: KubeMesh, shop: Shop, clear: Clear, wanted: bool) -> float:
    """Milliseconds that connections were still dialled in clear after all pods showed that they are enrolled."""
    mesh.label("namespace", shop.namespace, AMBIENT if wanted else None)
    mesh.wait_redirected(shop.namespace, "enabled" if wanted else "")
    if not wanted:
        return 0
    shown = time.time_ns()
    until(lambda: _last_dial(clear) < time.time_ns() - QUIET, "nothing more is dialled in clear")
    last = _last_dial(clear)
    time.sleep(QUIET / 1e9)
    assert _last_dial(clear) == last, "dialled in clear between enrolled pods"
    return max(0, last - shown) / 1e6


def _last_dial(clear: Clear) -> int:
    """Nanoseconds since 1970. Connections that are older than the label go on in clear, dials do not."""
    return max((int(dialled) for _, _, dialled in clear.found), default=0)


def _containers(mesh: KubeMesh, shop: Shop) -> list[str]:
    found = mesh.get("pods", "-n", shop.namespace)["items"]
    return [status["containerID"] for each in found for status in each["status"]["containerStatuses"]]
