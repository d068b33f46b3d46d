"""Two namespaces of the mesh, each with a waypoint of the controller's making. In one it is Ambit's as it is; in the
other's network Envoy listens, and takes what comes to the waypoint's port."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.authority import issuer
from controller.authority.authority import Authority
from controller.store import kinds
from deploy.local import api, cgroups
from deploy.local.errors import LocalError
from deploy.local.namespaces import inside
from deploy.local.objects import condition
from mesh.model import ports
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE
from mesh.model.identity import SpiffeId
from perf.bench import envoy, envoy_waypoint, http_load
from perf.bench.cases import Name
from perf.bench.certificates import TRUST_DOMAIN, issue_from
from perf.bench.place import Place
from perf.bench.systems import Proxy, System
from perf.bench.testbed import SERVER_NODE, Testbed, find_place, until

SPACES = {Name.AMBIT: "l7-ambit", Name.ENVOY: "l7-envoy"}
WAYPOINT, SERVER = "waypoint", "server"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
HTTP, GRPC = 80, 81  # of the Service
TARGETS = {HTTP: 8080, GRPC: 8081}  # of the pod
DOCUMENTS = "documents"
STAND_IN = 15108  # where Envoy listens in the waypoint's network
MESSAGE = b"\0\0\0\0\x40" + b"x" * 64  # a gRPC message of 64 bytes: not compressed, its length, itself

Json = dict[str, Any]


@contextmanager
def running(bed: Testbed, progress: Callable[[str], None]) -> Iterator[Mapping[Name, System]]:
    """Both waypoints, with an app behind each. Raises LocalError."""
    http_load.install(progress)
    progress("Starting waypoints")
    with ExitStack() as stack:
        asyncio.run(_apply([each for space in SPACES.values() for each in _objects(space)]))
        servers = {name: _place(bed, space, SERVER) for name, space in SPACES.items()}
        for name, place in servers.items():
            for proxy in _apps(bed, name, place):
                stack.callback(proxy.end)
                proxy.start()
        until(lambda: asyncio.run(_programmed()), "a waypoint of the benchmark")
        waypoints = {name: _waypoint(space) for name, space in SPACES.items()}
        stand_in = _stand_in(bed, waypoints[Name.ENVOY], servers[Name.ENVOY].ip)
        stack.callback(stand_in.end)
        stand_in.start()
        own = waypoints[Name.AMBIT]
        cgroup = bed.instance.node(own["spec"]["nodeName"]).pod_cgroup(own["metadata"]["uid"])
        yield {
            Name.AMBIT: _system(bed, Name.AMBIT, lambda: cgroups.processes(cgroup)),
            Name.ENVOY: _system(bed, Name.ENVOY, stand_in.pids),
        }


def _system(bed: Testbed, name: Name, waypoint: Callable[[], frozenset[int]]) -> System:
    return System(name, bed.mesh.client, _service_ip(SPACES[name]), HTTP, waypoint)


def _objects(space: str) -> Iterator[Json]:
    labels = {DATAPLANE_MODE: AMBIENT, "istio.io/use-waypoint": WAYPOINT}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}
    listener = {"name": "mesh", "port": ports.HBONE, "protocol": "HBONE"}
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": WAYPOINT, "namespace": space},
        "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [listener]},
    }
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": SERVER, "namespace": space, "labels": {"app": SERVER}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": SERVER_NODE},
            "containers": [{"name": "app", "image": "app", "command": ["sleep", "infinity"]}],
        },
    }
    served = [{"name": f"p{port}", "port": port, "targetPort": target} for port, target in TARGETS.items()]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVER, "namespace": space},
        "spec": {"selector": {"app": SERVER}, "ports": served},
    }


def call_file(files: Path) -> Path:
    """The message that is sent, and what answers it: nghttpd serves it by the call's own path."""
    return files / DOCUMENTS / http_load.GRPC_PATH.strip("/")


def _apps(bed: Testbed, name: Name, place: Place) -> Iterator[Proxy]:
    """The pod's two servers."""
    config, call = bed.files / f"app-{name}.json", call_file(bed.files)
    envoy.write(config, envoy_waypoint.app((place.ip, TARGETS[HTTP])))
    yield Proxy(place, envoy.command(config), (place.ip, TARGETS[HTTP]), bed.files / f"app-{name}.log")
    call.parent.mkdir(parents=True, exist_ok=True)
    call.write_bytes(MESSAGE)
    serve = ["nghttpd", "--no-tls", "--trailer=grpc-status: 0", "-n1", f"--htdocs={bed.files / DOCUMENTS}"]
    command = [*serve, f"--address={place.ip}", str(TARGETS[GRPC])]
    yield Proxy(place, command, (place.ip, TARGETS[GRPC]), bed.files / f"grpc-{name}.log")


def _stand_in(bed: Testbed, pod: Json, app_ip: str) -> Proxy:
    """Envoy with the waypoint's identity, in its network and cgroup."""
    account, space = pod["spec"]["serviceAccountName"], pod["metadata"]["namespace"]
    now = datetime.now(UTC)
    authority = Authority(issuer.load_or_create(bed.instance.controller / "ca", TRUST_DOMAIN, now), TRUST_DOMAIN)
    keys = issue_from(authority, bed.files, SpiffeId(TRUST_DOMAIN, space, account), now)
    place, config = find_place(bed.instance, pod), bed.files / "envoy-waypoint.json"
    envoy.write(config, envoy_waypoint.waypoint(keys, (place.ip, STAND_IN), app_ip, TARGETS, ports.HBONE))
    hook = "type nat hook prerouting priority dstnat;"
    rules = f"table ip bench {{\nchain in {{\n{hook}\ntcp dport {ports.HBONE} redirect to :{STAND_IN}\n}}\n}}\n"
    command = ["nft", "-f", "-"]
    done = inside(place.netns, lambda: subprocess.run(command, input=rules, capture_output=True, text=True))
    if done.returncode:
        raise LocalError(f"nft: {done.stderr.strip()}")
    return Proxy(place, envoy.command(config), (place.ip, STAND_IN), bed.files / "envoy-waypoint.log")


async def _apply(objects: list[Json]) -> None:
    store = api.open_store()
    for each in objects:
        await store.apply(each)


async def _programmed() -> bool:
    found = [each for each in await api.open_store().list(kinds.GATEWAY) if each["metadata"]["name"] == WAYPOINT]
    return len(found) == len(SPACES) and all(condition(each, "Programmed") for each in found)


def _waypoint(space: str) -> Json:
    """Its pod, once it is ready."""

    def look() -> Mapping[str, Any] | None:
        pods = asyncio.run(api.open_store().list(kinds.POD))
        mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get(GATEWAY_NAME) == WAYPOINT]
        return next((pod for pod in mine if pod["metadata"]["namespace"] == space and condition(pod, "Ready")), None)

    until(lambda: look() is not None, f"the waypoint of {space}")
    found = look()
    assert found is not None
    return dict(found)


def _place(bed: Testbed, space: str, name: str) -> Place:
    def look() -> Json:
        return dict(asyncio.run(api.open_store().get(kinds.POD, name, space)))

    until(lambda: bool(condition(look(), "Ready")), f"pod {space}/{name}")
    return find_place(bed.instance, look())


def _service_ip(space: str) -> str:
    found = asyncio.run(api.open_store().get(kinds.SERVICE, SERVER, space))
    return str(found["spec"]["clusterIP"])
