"""The sockets of the mesh inside a pod: opened by the agent, which keeps them for the workers that come and go.

Everything here blocks for a moment and runs on a thread that is inside the pod's network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from pyroute2 import IPRoute

from mesh.model import ports
from mesh.model.address import Ip, canonical
from ztunnel.feed import SocketRole

BACKLOG = 4096  # 128 as in Istio overflows when 2,000 connections come at once; the kernel caps it at somaxconn
LINK_SCOPE = 253  # rtnetlink(7): addresses of this scope and beyond (host, nowhere) are nobody's destination

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class SocketError(Exception):
    """A pod's socket cannot be opened; the text names the port."""


@dataclass(frozen=True, slots=True)
class PodSockets:
    """Descriptors, owned by this value until `close`."""

    roles: tuple[SocketRole, ...]
    descriptors: tuple[int, ...]
    addresses: tuple[Ip, ...]  # of the namespace, loopback and link-local ones left out

    @property
    def inbound(self) -> int:
        return self.descriptors[self.roles.index(SocketRole.INBOUND)]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def open_sockets(ipv6: bool, reuse_port: bool) -> PodSockets:
    """In the calling thread's network namespace. Raises SocketError; nothing stays open then."""
    with ExitStack() as undo:
        opened = []
        for role, sock in _listeners(ipv6 and _loopback_has_ipv6(), reuse_port, undo):
            opened.append((role, sock))
        addresses = _addresses()
        undo.pop_all()
    return PodSockets(tuple(role for role, _ in opened), tuple(sock.detach() for _, sock in opened), addresses)


def _listeners(ipv6: bool, reuse_port: bool, undo: ExitStack) -> Iterator[tuple[SocketRole, socket.socket]]:
    loopback = [socket.AF_INET, socket.AF_INET6] if ipv6 else [socket.AF_INET]
    wildcard = socket.AF_INET6 if ipv6 else socket.AF_INET
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    wanted = [
        *((SocketRole.OUTBOUND, family, stream, LOOPBACK[family], ports.OUTBOUND) for family in loopback),
        (SocketRole.INBOUND, wildcard, stream, "", ports.INBOUND_PLAINTEXT),
        (SocketRole.HBONE, wildcard, stream, "", ports.HBONE),
        *((SocketRole.DNS_TCP, family, stream, LOOPBACK[family], ports.DNS) for family in loopback),
        *((SocketRole.DNS_UDP, family, datagram, LOOPBACK[family], ports.DNS) for family in loopback),
    ]
    for role, family, kind, host, port in wanted:
        yield role, undo.enter_context(_open(family, kind, host, port, reuse_port))


def _open(family: int, kind: int, host: str, port: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:  # a successor binds while its predecessor drains
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        what = (
            "is in use in the pod"
            if error.errno == errno.EADDRINUSE
            else f"cannot be opened in the pod: {error.strerror}"
        )
        raise SocketError(f"{protocol} port {port} {what}") from error
    return sock


def _loopback_has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((LOOPBACK[socket.AF_INET6], 0))
    except OSError:
        return False
    return True


def _addresses() -> tuple[Ip, ...]:
    try:
        with IPRoute() as netlink:
            found = [
                canonical(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
                for message in netlink.get_addr()
                if message["scope"] < LINK_SCOPE
            ]
    except OSError as error:
        raise SocketError(f"the pod's addresses cannot be read: {error.strerror}") from error
    return tuple(dict.fromkeys(found))
