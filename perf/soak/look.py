"""What a mesh holds right now: memory and files of its processes, entries of its eBPF maps, its own gauges, sockets."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

from deploy.local.namespaces import inside
from ebpf.node import Capture
from mesh.model import ports
from perf.bench.place import Place, resident_bytes
from perf.bench.testbed import CLIENT_NODE, SERVER_NODE, Testbed
from perf.soak.verdict import Sample

NODES = (CLIENT_NODE, SERVER_NODE)
TIMEOUT = 10.0  # seconds for an agent's metrics: the machine may be busy
# Gauges of a worker that must be back where they were; its other counters say what has happened.
GAUGES = (
    "connections",
    "connections_waiting_for_agent",
    "lingering",
    "pool_keys",
    "pool_tunnels",
    "pool_streams",
    "pool_dials",
    "pool_dials_waiting",
    "pool_waiting",
    "pool_held_bytes",
    "inbound_tunnels",
    "inbound_streams",
    "inbound_handshakes",
    "inbound_held_bytes",
    "passed_held_bytes",
    "tunnels_unsent_bytes",
    "records_waiting",
    "records_unsent_bytes",
    "dns_waiting",
)


def processes(bed: Testbed) -> dict[str, int]:
    """Process ids by name: each node's agent and workers."""
    found: dict[str, int] = {}
    for node in NODES:
        workers = 0
        for pid in sorted(bed.proxies(node)):
            worker = b"ztunnel.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
            workers += worker
            found[f"{node} worker {workers}" if worker else f"{node} agent"] = pid
    return found


def sample(at: float, pids: dict[str, int]) -> Sample:
    """Of the processes that were there in the beginning; those that have ended are missing in it."""
    memory: dict[str, int] = {}
    files: dict[str, int] = {}
    for name, pid in pids.items():
        try:
            files[name] = len(os.listdir(f"/proc/{pid}/fd"))
            memory[name] = resident_bytes(pid)
        except (OSError, ValueError):
            continue
    return Sample(at, memory, files)


def queues(bed: Testbed) -> dict[str, int]:
    """Gauges of both nodes, entries of their maps, and TCP sockets of the pods that send and answer."""
    held: dict[str, int] = {}
    for node in NODES:
        held |= {f"{node}: {name}": value for name, value in gauges(bed, node).items() if name in GAUGES}
        with closing(Capture.open(bed.instance.node(node).pins)) as capture:
            held |= {f"{node}: map {name}": count for name, count in capture.counts().items()}
    held["client: sockets"] = sockets(bed.mesh.client)
    held["server: sockets"] = sockets(bed.mesh.server)
    return held


def gauges(bed: Testbed, node: str) -> dict[str, int]:
    """What a node's workers count, as Prometheus would get it. Raises OSError."""
    url = f"http://127.0.0.1:{ports.METRICS}/metrics"
    text = inside(bed.instance.node(node).netns, lambda: urlopen(url, timeout=TIMEOUT).read().decode())
    found = re.findall(r'^ambit_worker\{name="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {name: int(float(value)) for name, value in found}


def sockets(place: Place) -> int:
    """TCP sockets of a pod, those that nobody owns any more included; TIME_WAIT is none."""
    text = inside(place.netns, lambda: Path("/proc/thread-self/net/sockstat").read_text())
    words = next(line for line in text.splitlines() if line.startswith("TCP:")).split()
    return int(words[words.index("inuse") + 1])


def at_rest(bed: Testbed, pids: dict[str, int]) -> dict[str, int]:
    """`queues`, and the files of each process; of a worker those besides its tunnels, which it may keep."""
    held = queues(bed)
    for name, count in sample(0, pids).files.items():
        node, role = name.split()[:2]
        tunnels = held[f"{node}: pool_tunnels"] + held[f"{node}: inbound_tunnels"] if role == "worker" else 0
        held[f"{name}: files"] = count - tunnels
    return held
