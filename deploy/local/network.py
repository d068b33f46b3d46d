"""Links, addresses and routes of a local mesh.

Nodes hang on a bridge that lives in a namespace of its own, so the machine's own network is never touched and a test
can read every packet between nodes. Pods are routed, not bridged, as Calico does it: one veth per pod, a route to each
of its addresses on the node, and a gateway address that every pod shares.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from deploy.local import namespaces
from deploy.local.addresses import (
    CONTROL,
    DNS_V4,
    DNS_V6,
    OUTSIDE,
    POD_GATEWAY_V4,
    POD_GATEWAY_V6,
    SERVICES_V4,
    SERVICES_V6,
    UNDERLAY_V4,
    UNDERLAY_V6,
    NodeAddresses,
    Pair,
)
from deploy.local.paths import Instance
from mesh.model.address import Ip, is_v6

BRIDGE = "underlay"
UPLINK = "underlay"
POD_LINK = "eth0"
LOOPBACK_INDEX = 1
LOCAL_TABLE = 255
IFA_F_NODAD = 2
# Nobody else can have our addresses: duplicate detection would only keep IPv6 silent for the first second.
ANY = {"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/default/dad_transmits": "0"}
ROUTER = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
POD = {"net/ipv4/ip_unprivileged_port_start": "0"}  # as container runtimes set it


def make_underlay(instance: Instance, nodes: Iterable[NodeAddresses]) -> None:
    """The bridge, and the controller's namespace on it. The bridge has an address too and knows the way to pods: what
    listens there is what a machine outside of the cluster is elsewhere."""
    nodes = list(nodes)
    _create(instance.underlay)
    namespaces.inside(instance.underlay, lambda: _make_bridge(nodes))
    _create(instance.control)
    _join_underlay(instance, instance.control, "control", CONTROL)
    namespaces.inside(instance.control, lambda: _lead_to_pods(nodes))


def make_node(instance: Instance, node: NodeAddresses, others: Iterable[NodeAddresses]) -> None:
    """A node's namespace: on the underlay, forwarding, with routes to the pods of `others`."""
    netns = instance.netns(node.name)
    _create(netns)
    _join_underlay(instance, netns, node.name, node.address)
    namespaces.inside(netns, lambda: _make_router(list(others)))


def add_pod(node_netns: Path, pod_netns: Path, link: str, addresses: Pair, node: Pair) -> None:
    """Make the pod's namespace and join it to its node. `link` names the node's end of the veth."""
    _create(pod_netns)
    with _descriptor(pod_netns) as descriptor:
        namespaces.inside(node_netns, lambda: _make_pod_link(descriptor, link, addresses, node))
    namespaces.inside(pod_netns, lambda: _configure_pod(addresses))


def remove_pod(node_netns: Path, pod_netns: Path, link: str) -> None:
    """Nothing happens to what is gone already."""
    with suppress(FileNotFoundError):
        namespaces.inside(node_netns, lambda: _remove_link(link))
    namespaces.remove(pod_netns)


def is_complete(node_netns: Path, pod_netns: Path, link: str) -> bool:
    """Whether a pod's namespace is there, with addresses and routes: those are what is made last."""
    if not namespaces.exists(pod_netns):
        return False
    return pod_netns == node_netns or namespaces.inside(pod_netns, _has_default_routes)


def _has_default_routes() -> bool:
    with IPRoute() as links:
        return all(links.get_default_routes(family=family) for family in (socket.AF_INET, socket.AF_INET6))


def pod_link(uid: str) -> str:
    """The node's end of a pod's veth: at most 15 characters, as the kernel wants it."""
    return "pod" + uid.replace("-", "")[:12]


@contextmanager
def _descriptor(netns: Path) -> Iterator[int]:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _create(netns: Path) -> None:
    namespaces.create(netns)
    namespaces.inside(netns, lambda: _set_sysctls(ANY))


def _set_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value)


def _index(links: Any, name: str) -> int:
    found: list[int] = links.link_lookup(ifname=name)
    if not found:
        raise OSError(f"there is no link {name}")
    return found[0]


def _up(links: Any, name: str) -> int:
    index = _index(links, name)
    links.link("set", index=index, state="up")
    return index


def _add_address(links: Any, index: int, ip: Ip, length: int) -> None:
    if is_v6(ip):
        links.addr("add", index=index, address=ip, prefixlen=length, flags=IFA_F_NODAD)
    else:
        links.addr("add", index=index, address=ip, prefixlen=length)


def _make_bridge(nodes: list[NodeAddresses]) -> None:
    with IPRoute() as links:
        # Snooping would hold back neighbour discovery until a querier shows up, and there is none.
        links.link("add", ifname=BRIDGE, kind="bridge", br_mcast_snooping=0)
        _up(links, "lo")
        index = _up(links, BRIDGE)
        _add_address(links, index, OUTSIDE.v4, UNDERLAY_V4.prefixlen)
        _add_address(links, index, OUTSIDE.v6, UNDERLAY_V6.prefixlen)
        _add_pod_routes(links, index, nodes)


def _join_underlay(instance: Instance, netns: Path, port: str, address: Pair) -> None:
    with _descriptor(instance.underlay) as underlay:
        namespaces.inside(netns, lambda: _make_uplink(underlay, port, address))
    namespaces.inside(instance.underlay, lambda: _plug_in(port))


def _make_uplink(underlay: int, port: str, address: Pair) -> None:
    with IPRoute() as links:
        links.link("add", ifname=UPLINK, kind="veth", peer={"ifname": port, "net_ns_fd": underlay})
        _up(links, "lo")
        index = _up(links, UPLINK)
        _add_address(links, index, address.v4, UNDERLAY_V4.prefixlen)
        _add_address(links, index, address.v6, UNDERLAY_V6.prefixlen)


def _plug_in(port: str) -> None:
    with IPRoute() as links:
        links.link("set", index=_index(links, port), master=_index(links, BRIDGE))
        _up(links, port)


def _make_router(others: list[NodeAddresses]) -> None:
    _set_sysctls(ROUTER)
    with IPRoute() as links:
        uplink = _index(links, UPLINK)
        _add_pod_routes(links, uplink, others)
        # Service addresses end at the node: what no rule sent on to an endpoint is refused here, and at once.
        for services in (SERVICES_V4, SERVICES_V6):
            links.route("add", dst=str(services), type="local", oif=LOOPBACK_INDEX, table=LOCAL_TABLE, scope=254)
        _add_address(links, LOOPBACK_INDEX, DNS_V4, 32)
        _add_address(links, LOOPBACK_INDEX, DNS_V6, 128)


def _lead_to_pods(nodes: list[NodeAddresses]) -> None:
    """Waypoints are pods, and ask the controller."""
    with IPRoute() as links:
        _add_pod_routes(links, _index(links, UPLINK), nodes)


def _add_pod_routes(links: Any, index: int, nodes: list[NodeAddresses]) -> None:
    for node in nodes:
        links.route("add", dst=str(node.pods_v4), gateway=node.address.v4, oif=index)
        links.route("add", dst=str(node.pods_v6), gateway=node.address.v6, oif=index)


def _make_pod_link(pod_netns: int, link: str, addresses: Pair, node: Pair) -> None:
    with IPRoute() as links:
        links.link("add", ifname=link, kind="veth", peer={"ifname": POD_LINK, "net_ns_fd": pod_netns})
        index = _up(links, link)
        _add_address(links, index, POD_GATEWAY_V4, 32)
        _add_address(links, index, POD_GATEWAY_V6, 64)
        # The node speaks to its pods from its own address: the gateway's is the same on every node.
        links.route("add", dst=f"{addresses.v4}/32", oif=index, prefsrc=node.v4)
        links.route("add", dst=f"{addresses.v6}/128", oif=index, prefsrc=node.v6)


def _configure_pod(addresses: Pair) -> None:
    _set_sysctls(POD)
    with IPRoute() as links:
        _up(links, "lo")
        index = _up(links, POD_LINK)
        _add_address(links, index, addresses.v4, 32)
        _add_address(links, index, addresses.v6, 128)
        links.route("add", dst=f"{POD_GATEWAY_V4}/32", oif=index, scope=253)
        links.route("add", dst="0.0.0.0/0", gateway=POD_GATEWAY_V4, oif=index, prefsrc=addresses.v4)
        links.route("add", dst="::/0", gateway=POD_GATEWAY_V6, oif=index, prefsrc=addresses.v6)


def _remove_link(link: str) -> None:
    with IPRoute() as links, suppress(NetlinkError):
        for index in links.link_lookup(ifname=link):
            links.link("del", index=index)
