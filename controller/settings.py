"""What the command line asks of the controller: read once, checked, frozen."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.compile.options import MeshOptions
from mesh.model import ports
from mesh.model.address import SocketAddress
from mesh.model.enrolment import SYSTEM_NAMESPACE
from mesh.model.identity import DEFAULT_TRUST_DOMAIN
from mesh.runtime import logs

DIRECTORY = "directory:"
KUBERNETES = "kubernetes"
ISTIO_SYSTEM = "istio-system"
DEFAULT_ADMIN = "127.0.0.1:15014"  # istiod's port for metrics; loopback, since it shows the whole mesh


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and the namespace of the mesh's own objects. No file: KUBECONFIG's, else the pod's own account."""

    kubeconfig: Path | None
    context: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Settings:
    """`names` are further DNS names and addresses by which ztunnels reach the controller."""

    store: Path | Cluster
    state: Path
    listen: SocketAddress
    admin: SocketAddress
    names: tuple[str, ...]
    mesh: MeshOptions
    log_levels: Mapping[str, str]
    waypoint_image: str = ""


def read(arguments: Sequence[str]) -> Settings:
    """Ends the process with usage and a sentence when an argument cannot be used."""
    parser = argparse.ArgumentParser("controller", description="Programs a mesh from Kubernetes objects.")
    stores = f"{DIRECTORY}PATH|{KUBERNETES}[:KUBECONFIG]"
    parser.add_argument("--store", required=True, metavar=stores, help="where the objects are")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keeps the CA and the token key; not in a cluster")
    parser.add_argument("--context", default="", help="of the kubeconfig, unless the current one")
    parser.add_argument("--namespace", default=SYSTEM_NAMESPACE, help="of the mesh's own objects in a cluster")
    parser.add_argument("--listen", default=f"0.0.0.0:{ports.CONTROLLER}", type=_address, metavar="IP:PORT")
    parser.add_argument("--admin", default=DEFAULT_ADMIN, type=_address, metavar="IP:PORT")
    parser.add_argument("--name", action="append", default=[], help="a name in the serving certificate; repeatable")
    parser.add_argument("--trust-domain", default=DEFAULT_TRUST_DOMAIN)
    parser.add_argument("--cluster-domain", default="cluster.local", help="what host names of services end in")
    parser.add_argument("--cluster-id", default="Kubernetes")
    parser.add_argument(
        "--root-namespace",
        action="append",
        metavar="NAME",
        help="where policies hold for the whole mesh; repeatable (default: istio-system and --namespace)",
    )
    parser.add_argument(
        "--waypoint-image", default="", help="of the waypoints that Gateways ask for; none are made without it"
    )
    parser.add_argument("--log", default="info", type=_levels, help="LEVEL or TARGET=LEVEL, comma-separated")
    given = parser.parse_args(arguments)
    store = _store(given)
    if store is None:
        parser.error(f"argument --store: {given.store!r} is not {stores}")
    if isinstance(store, Path) and given.state is None:
        parser.error(f"argument --state is required with --store {DIRECTORY}PATH")
    roots = tuple(dict.fromkeys(given.root_namespace or (ISTIO_SYSTEM, given.namespace)))
    mesh = MeshOptions(given.cluster_id, given.cluster_domain, given.trust_domain, roots)
    state = given.state or Path()
    return Settings(store, state, given.listen, given.admin, tuple(given.name), mesh, given.log, given.waypoint_image)


def _store(given: argparse.Namespace) -> Path | Cluster | None:
    kind, colon, path = given.store.partition(":")
    if kind == KUBERNETES and bool(colon) == bool(path):
        return Cluster(Path(path) if path else None, given.context, given.namespace)
    if kind + colon == DIRECTORY and path:
        return Path(path)
    return None


def _address(text: str) -> SocketAddress:
    try:
        return SocketAddress.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _levels(text: str) -> Mapping[str, str]:
    try:
        return logs.parse_levels(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
