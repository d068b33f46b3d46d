"""The underlay: a bridge in a network namespace of its own, with the nodes, the control plane, an outside and the host.

The machine gets one interface, named after the cluster, and no sysctl, route or firewall rule besides.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.plan import CONTROL, FIRST_NODE, HOST, OUTSIDE, PODS, Cluster, Node

PLACES = {"control": CONTROL, "outside": OUTSIDE}
FORWARD = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
# An address that is still checked for duplicates cannot be bound, and nobody else gives any out here.
NO_DUPLICATE_CHECK = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")


def namespaces(cluster: Cluster) -> list[str]:
    places = ["underlay", *PLACES, *(node.name for node in cluster.nodes)]
    return [cluster.namespace(place) for place in places]


def taken(cluster: Cluster) -> list[str]:
    """What this cluster would make and exists already."""
    found = [f"network namespace {name}" for name in namespaces(cluster) if Path("/run/netns", name).exists()]
    return found + ([f"interface {cluster.name}"] if Path("/sys/class/net", cluster.name).exists() else [])


def free_index(others: set[int]) -> int:
    """The first underlay that no other cluster and no interface of this machine is in. Raises RuntimeError."""
    interfaces = json.loads(run("ip", "-json", "-4", "address"))
    used = {address["local"].rpartition(".")[0] for interface in interfaces for address in interface["addr_info"]}
    for index in range(256):
        if index not in others and f"172.30.{index}" not in used:
            return index
    raise RuntimeError("every network 172.30.0.0/24 to 172.30.255.0/24 is taken")


def create(cluster: Cluster) -> None:
    underlay = cluster.namespace("underlay")
    for namespace in namespaces(cluster):
        run("ip", "netns", "add", namespace)
        _sysctl(namespace, *NO_DUPLICATE_CHECK)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
    run("ip", "-n", underlay, "link", "add", "underlay", "type", "bridge")
    run("ip", "-n", underlay, "link", "set", "underlay", "up")
    _attach_host(cluster)
    for place, host in PLACES.items():
        _attach(cluster, place, host)
    for node in cluster.nodes:
        _attach(cluster, node.name, FIRST_NODE + node.number - 1)
    for node in cluster.nodes:
        _route(node)


def _attach(cluster: Cluster, place: str, host: int) -> None:
    namespace, underlay = cluster.namespace(place), cluster.namespace("underlay")
    peer = ("peer", "name", "eth0", "netns", namespace)
    run("ip", "-n", underlay, "link", "add", place, "type", "veth", *peer)
    run("ip", "-n", underlay, "link", "set", place, "master", "underlay", "up")
    _address(("ip", "-n", namespace), "eth0", cluster.underlay(host))


def _attach_host(cluster: Cluster) -> None:
    underlay = cluster.namespace("underlay")
    run("ip", "link", "add", cluster.name, "type", "veth", "peer", "name", "host", "netns", underlay)
    run("ip", "-n", underlay, "link", "set", "host", "master", "underlay", "up")
    _address(("ip",), cluster.name, cluster.underlay(HOST))


def _address(ip: tuple[str, ...], interface: str, addresses: tuple[str, ...]) -> None:
    for address in addresses:
        length = 64 if ":" in address else 24
        run(*ip, "address", "add", f"{address}/{length}", "dev", interface, *(["nodad"] if ":" in address else []))
    run(*ip, "link", "set", interface, "up")


def _route(node: Node) -> None:
    """Pods of every node are reached through it; the rest of the world is `outside`."""
    cluster, namespace = node.cluster, node.cluster.namespace(node.name)
    _sysctl(namespace, *FORWARD)
    for gateway in cluster.underlay(OUTSIDE):
        run("ip", "-n", namespace, "route", "add", "default", "via", gateway)
    for place in ["control", *(other.name for other in cluster.nodes if other != node)]:
        for subnet, address in zip(node.pods, node.addresses, strict=True):
            run("ip", "-n", cluster.namespace(place), "route", "add", subnet, "via", address)
    _masquerade(node)


def _masquerade(node: Node) -> None:
    """What pods send to elsewhere than pods comes from their node's address, as in most clusters."""
    families = zip(("ip", "ip6"), node.pods, node.cluster.families(PODS), strict=False)
    rules = "".join(f"{kind} saddr {own} {kind} daddr != {pods} masquerade\n" for kind, own, pods in families)
    table = f"table inet underlay {{ chain leaving {{ type nat hook postrouting priority srcnat + 10;\n{rules}}}\n}}\n"
    run("ip", "netns", "exec", node.cluster.namespace(node.name), "nft", "-f", "-", text=table)


def _sysctl(namespace: str, *settings: str) -> None:
    run("ip", "netns", "exec", namespace, "sysctl", "-qw", *settings)


def remove(cluster: Cluster) -> None:
    if Path("/sys/class/net", cluster.name).exists():
        run("ip", "link", "delete", cluster.name)
    for namespace in namespaces(cluster):
        if Path("/run/netns", namespace).exists():
            run("ip", "netns", "delete", namespace)
