"""The kernel-user contract as Python says it; bpf/contract.h says it in C, and a test compares the two."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from mesh.model.address import Ip, SocketAddress

CONTRACT_VERSION = 2

V4_PREFIX = bytes(10) + b"\xff\xff"
PORT_AND_ZERO = struct.Struct("!HH")
NUMBER = struct.Struct("=Q")  # a netns cookie or a cgroup id, as keys have it
DESCRIPTOR = struct.Struct("=i")  # key of socket storage: a descriptor of the socket

ENDPOINT_SIZE = 20
PRESENT = struct.pack("=I", 1)  # the value of maps that are sets


# enum bpf_map_type
HASH, ARRAY, LRU_HASH, SOCKHASH, SOCKET_STORAGE = 1, 2, 9, 18, 24


@dataclass(frozen=True, slots=True)
class MapLayout:
    type: int
    key_size: int
    value_size: int
    entries: int


DISGUISE_SIZE = 2 * ENDPOINT_SIZE
FLOW_SIZE = 8 + 2 * ENDPOINT_SIZE
DNS_CLIENT_SIZE = 8 + ENDPOINT_SIZE + 4
POD_SIZE = 4 + 16

MAPS = {
    "contract": MapLayout(ARRAY, 4, 4, 1),
    "enrolled": MapLayout(HASH, 8, POD_SIZE, 4096),
    "exempt_cgroups": MapLayout(HASH, 8, 4, 64),
    "listeners": MapLayout(SOCKHASH, 16, 8, 16384),
    "node_netns": MapLayout(ARRAY, 4, 8, 1),
    "pods_by_address": MapLayout(HASH, 16, 8, 8192),
    "node_flows": MapLayout(HASH, FLOW_SIZE, 4, 8192),
    "in_flight": MapLayout(HASH, FLOW_SIZE, ENDPOINT_SIZE, 32768),
    "original_dst": MapLayout(SOCKET_STORAGE, 4, ENDPOINT_SIZE, 0),
    "presented": MapLayout(SOCKET_STORAGE, 4, ENDPOINT_SIZE, 0),
    "shown_peer": MapLayout(SOCKET_STORAGE, 4, DISGUISE_SIZE, 0),
    "dns_resolver": MapLayout(SOCKET_STORAGE, 4, DISGUISE_SIZE, 0),
    "dns_clients": MapLayout(LRU_HASH, DNS_CLIENT_SIZE, ENDPOINT_SIZE, 4096),
    "last_resolver": MapLayout(LRU_HASH, 8, ENDPOINT_SIZE, 4096),
}


def pack_ip(ip: Ip) -> bytes:
    """16 bytes in network order. Raises OSError for what is no IP address."""
    return inet_pton(AF_INET6, ip) if ":" in ip else V4_PREFIX + inet_pton(AF_INET, ip)


def unpack_ip(raw: bytes) -> Ip:
    return Ip(inet_ntop(AF_INET, raw[12:16]) if raw[:12] == V4_PREFIX else inet_ntop(AF_INET6, raw[:16]))


def pack_endpoint(address: SocketAddress) -> bytes:
    return pack_ip(address.ip) + PORT_AND_ZERO.pack(address.port, 0)


def unpack_endpoint(raw: bytes) -> SocketAddress:
    return SocketAddress(unpack_ip(raw), int.from_bytes(raw[16:18], "big"))


def pack_pod(addresses: Iterable[Ip]) -> bytes:
    """The first address of each family, zero where there is none."""
    found = list(addresses)
    ip4 = next((inet_pton(AF_INET, ip) for ip in found if ":" not in ip), bytes(4))
    return ip4 + next((inet_pton(AF_INET6, ip) for ip in found if ":" in ip), bytes(16))


def unpack_pod(raw: bytes) -> list[Ip]:
    """The addresses that `pack_pod` was given."""
    found = [Ip(inet_ntop(AF_INET, raw[:4]))] if any(raw[:4]) else []
    return found + ([Ip(inet_ntop(AF_INET6, raw[4:20]))] if any(raw[4:20]) else [])


def pack_dns_client(netns_cookie: int, source: SocketAddress) -> bytes:
    return NUMBER.pack(netns_cookie) + pack_endpoint(source) + bytes(4)
