"""Services for pods outside the mesh: nftables rules of a node that send a Service's address on to an endpoint. Pure.

The whole table is replaced in one transaction, so there is no moment without rules. Connections that stand keep their
endpoint: the kernel's connection tracking remembers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from deploy.local.addresses import DNS_V4, DNS_V6, SERVICES_V4, SERVICES_V6, Pair
from deploy.local.service_map import VirtualPort
from mesh.model.address import SocketAddress, is_v6

TABLE = "ambit_services"


def render(services: Mapping[VirtualPort, Sequence[SocketAddress]], node: Pair) -> str:
    """Input for `nft -f -`. `node`: the node's own addresses."""
    served = {virtual: endpoints for virtual, endpoints in sorted(services.items()) if endpoints}
    lines = [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *(f"  {line}" for line in _lines(served, node)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _lines(served: Mapping[VirtualPort, Sequence[SocketAddress]], node: Pair) -> Iterator[str]:
    yield "chain services {"
    yield from (f"  {_rule(virtual, endpoints)}" for virtual, endpoints in served.items())
    yield "}"
    for hook in ("prerouting", "output"):  # output: for what the node itself dials
        yield f"chain {hook} {{ type nat hook {hook} priority -100; jump services; }}"
    yield "chain postrouting {"
    yield "  type nat hook postrouting priority srcnat;"
    yield from (f"  {line}" for line in _hairpins(served, node))
    yield "}"
    # Nothing listens on Service addresses but the resolver: a Service without endpoints refuses, as kube-proxy's does.
    yield "chain input {"
    yield "  type filter hook input priority filter;"
    for family, block, resolver in (("ip", SERVICES_V4, DNS_V4), ("ip6", SERVICES_V6, DNS_V6)):
        yield f"  {family} daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
        yield f"  {family} daddr {block} meta l4proto tcp reject with tcp reset"
        yield f"  {family} daddr {block} reject"
    yield "}"


def _rule(virtual: VirtualPort, endpoints: Sequence[SocketAddress]) -> str:
    family = "ip6" if is_v6(virtual.address) else "ip"
    match = f"{family} daddr {virtual.address} {virtual.protocol} dport {virtual.port}"
    if len(endpoints) == 1:
        return f"{match} dnat {family} to {endpoints[0]}"
    chosen = ", ".join(f"{index} : {each.ip} . {each.port}" for index, each in enumerate(endpoints))
    return f"{match} dnat {family} addr . port to numgen random mod {len(endpoints)} map {{ {chosen} }}"


def _hairpins(served: Mapping[VirtualPort, Sequence[SocketAddress]], node: Pair) -> Iterator[str]:
    """A pod that reaches itself through a Service must not see its own address as the peer's: it would drop that."""
    addresses = sorted({each.ip for endpoints in served.values() for each in endpoints})
    for family, own in (("ip", node.v4), ("ip6", node.v6)):
        pairs = [f"{address} . {address}" for address in addresses if is_v6(address) == is_v6(own)]
        if pairs:
            yield f"ct status dnat {family} saddr . {family} daddr {{ {', '.join(pairs)} }} snat {family} to {own}"
