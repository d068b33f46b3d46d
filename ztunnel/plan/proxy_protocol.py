"""HAProxy's PROXY protocol, version 2, as a waypoint behind an application tunnel takes it (proxy-protocol.txt 2.2)."""

from __future__ import annotations

import struct

from mesh.model.address import SocketAddress, is_v6, packed
from mesh.model.identity import SpiffeId

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_TCP4, _TCP6 = 0x11, 0x21
_PEER_IDENTITY = 0xD0  # Istio's: the client's SPIFFE URI


def build_header(source: SocketAddress, destination: SocketAddress, peer: SpiffeId) -> bytes:
    """Both addresses in one family: IPv4 becomes mapped IPv6 where the other one is IPv6."""
    v6 = is_v6(source.ip) or is_v6(destination.ip)
    body = b"".join(_address(each, v6) for each in (source, destination))
    body += struct.pack("!HH", source.port, destination.port)
    uri = str(peer).encode("ascii")
    body += struct.pack("!BH", _PEER_IDENTITY, len(uri)) + uri
    return _SIGNATURE + struct.pack("!BBH", _VERSION_2_PROXY, _TCP6 if v6 else _TCP4, len(body)) + body


def _address(address: SocketAddress, v6: bool) -> bytes:
    octets = packed(address.ip)
    return b"\0" * 10 + b"\xff\xff" + octets if v6 and len(octets) == 4 else octets
