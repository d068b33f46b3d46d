"""The address plan of a local mesh: pure. The networks live in namespaces of their own, so they clash with nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mesh.model.address import Ip, canonical

# 172.18/16 is what kind uses for its nodes, 10.244/16 and 10.96/16 are kubeadm's usual choice for pods and services:
# manifests and habits from there fit. The IPv6 blocks are unique local addresses with the same numbers in them.
UNDERLAY_V4, UNDERLAY_V6 = IPv4Network("172.18.0.0/24"), IPv6Network("fd00:172:18::/64")
SERVICES_V4, SERVICES_V6 = IPv4Network("10.96.0.0/16"), IPv6Network("fd00:10:96::/112")
DNS_V4, DNS_V6 = canonical("10.96.0.10"), canonical("fd00:10:96::a")  # kubeadm's: every pod's resolver
POD_GATEWAY_V4, POD_GATEWAY_V6 = canonical("169.254.1.1"), canonical("fe80::1")  # Calico's: the node's end of a veth
OUTSIDE_HOST, CONTROL_HOST = 1, 2
FIRST_NODE_HOST = 10
MOST_NODES = 200  # what a /24 underlay and one /24 of pods per node leave room for


@dataclass(frozen=True, slots=True)
class Pair:
    """An address of each family."""

    v4: Ip
    v6: Ip

    def both(self) -> tuple[Ip, Ip]:
        return (self.v4, self.v6)


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """A node: its own addresses on the underlay and the blocks of its pods."""

    index: int
    name: str
    address: Pair
    pods_v4: IPv4Network
    pods_v6: IPv6Network


def _host(index: int) -> Pair:
    return Pair(canonical(str(UNDERLAY_V4[index])), canonical(str(UNDERLAY_V6[index])))


CONTROL = _host(CONTROL_HOST)
OUTSIDE = _host(OUTSIDE_HOST)  # of the bridge itself


def node_addresses(index: int) -> NodeAddresses:
    """The `index`th node, from 1. Raises ValueError beyond `MOST_NODES`."""
    if not 1 <= index <= MOST_NODES:
        raise ValueError(f"a local mesh has 1 to {MOST_NODES} nodes, not {index}")
    return NodeAddresses(
        index=index,
        name=f"node{index}",
        address=_host(FIRST_NODE_HOST + index),
        pods_v4=IPv4Network(f"10.244.{index}.0/24"),
        pods_v6=IPv6Network(f"fd00:10:244:{index:x}::/64"),
    )


def pod_addresses(node: NodeAddresses, used: Collection[int], last: int) -> tuple[int, Pair]:
    """A free place after `last` in the node's blocks, and its addresses. Raises ValueError when all are taken.

    The search goes on where it ended, so that an address is not reused while others may still believe in its last
    owner.
    """
    places = range(2, node.pods_v4.num_addresses - 1)
    for offset in range(len(places)):
        place = places[(last - 1 + offset) % len(places)]
        if place not in used:
            return place, Pair(canonical(str(node.pods_v4[place])), canonical(str(node.pods_v6[place])))
    raise ValueError(f"node {node.name} has no free pod address in {node.pods_v4}")
