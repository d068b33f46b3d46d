"""Where something is: an IP address and a port, in the one spelling that the whole mesh compares.

An address is canonical text ("10.0.0.1", "fd00::1"), as the kernel's own inet_ntop writes it. Text is what sockets,
logs and manifests already hold, so the hot path compares and hashes it without parsing; only the border parses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, NewType

Ip = NewType("Ip", str)

V4_MAPPED = "::ffff:"


def canonical(text: str) -> Ip:
    """The canonical spelling of `text`; IPv4-mapped IPv6 becomes IPv4, a zone index goes. Raises ValueError."""
    return _canonical(text.partition("%")[0])


@lru_cache(maxsize=4096)  # addresses of peers in headers: the same few over and over; what is no address is not kept
def _canonical(text: str) -> Ip:
    parsed = ip_address(text)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return Ip(str(parsed))


def from_kernel(text: str) -> Ip:
    """As `canonical`, for text that a socket call returned: already well formed, so nothing is parsed."""
    if text.startswith(V4_MAPPED) and "." in text:
        return Ip(text[len(V4_MAPPED) :])
    return Ip(text.partition("%")[0])


def from_packed(packed: bytes) -> Ip:
    """From 4 or 16 bytes in network order, as in workload.proto. Raises ValueError for any other length."""
    return canonical(str(ip_address(packed)))


def packed(ip: Ip) -> bytes:
    """4 or 16 bytes in network order."""
    return ip_address(ip).packed


@lru_cache(maxsize=16384)  # blocks of policies and addresses of peers: the same few over and over
def prefix(ip: Ip, length: int) -> int:
    """The first `length` bits as a number."""
    address = ip_address(ip)
    return int(address) >> (address.max_prefixlen - length)


def is_v6(ip: Ip) -> bool:
    return ":" in ip


def is_loopback(ip: Ip) -> bool:
    return ip.startswith("127.") or ip == "::1"


class SocketAddress(NamedTuple):
    """An IP address and a TCP or UDP port. A tuple, because each connection makes and compares about ten."""

    ip: Ip
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> SocketAddress:
        """From "1.2.3.4:80" or "[fd00::1]:80". Raises ValueError naming what is wrong."""
        host, port = split_authority(text)
        if ":" in host and not text.startswith("["):
            raise ValueError(f"an IPv6 address needs brackets: {text!r}")
        return cls(canonical(host), port)


def split_authority(text: str) -> tuple[str, int]:
    """Host and port of an HTTP authority; the host without brackets. Raises ValueError (RFC 9110 section 7.2)."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        IPv6Address(host)
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: {text!r}")
    if not colon or not host:
        raise ValueError(f"no host and port in {text!r}")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"no port between 1 and 65535 in {text!r}")
    return host, int(port)


def is_ip(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Cidr:
    """A block of addresses: those that share the first `length` bits with `ip`."""

    ip: Ip
    length: int

    def __str__(self) -> str:
        return f"{self.ip}/{self.length}"

    def contains(self, ip: Ip) -> bool:
        if is_v6(self.ip) != is_v6(ip):
            return False
        return prefix(self.ip, self.length) == prefix(ip, self.length)


__all__ = [
    "Cidr",
    "Ip",
    "SocketAddress",
    "canonical",
    "from_kernel",
    "from_packed",
    "is_ip",
    "is_loopback",
    "is_v6",
    "packed",
    "prefix",
    "split_authority",
]
