"""How one request went from a pod to a server: who answered, and whether it could be read where the nodes meet."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import count

from tests.kube.installed import KubeMesh

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Way:
    """`server` is the name of the host that answered, "" when nobody did; `clear`: a packet between nodes showed it."""

    server: str
    clear: bool
    complaint: str = ""


def ask(mesh: KubeMesh, client: str, where: str) -> Way:
    """One line on one connection from a pod (namespace/name) to HOST:PORT."""
    marker = f"way{next(_numbers)}x{id(mesh) % 9973}"
    with mesh.sniff(re.escape(marker.encode())) as clear:
        said = json.loads(mesh.exec(client, "/traffic", "load", where, marker, "0", "1", "1").splitlines()[-1])
    assert not clear.missed
    servers = list(said["servers"]) or [""]
    return Way(servers[0], bool(clear.found), "; ".join(said["failures"]))
