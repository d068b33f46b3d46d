"""The node's hands on the capture: who is enrolled, who is exempt, where inbound connections go, and what a captured
socket really wanted. Works on what the loader has pinned, with bpf(2) alone.

A Capture keeps buffers for its calls: one per thread.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ebpf import contract, hooks, syscalls
from ebpf.contract import DESCRIPTOR, NUMBER, PRESENT
from ebpf.maps import Map
from ebpf.pins import NEXT, Pins, names, replace
from mesh.model.address import Ip, SocketAddress


class NotLoaded(Exception):
    """The loader has not been here. Says where."""


class Capture:
    def __init__(self, pins: Pins, maps: dict[str, Map]) -> None:
        self._pins = pins
        self._maps = maps
        self._enrolled, self._exempt = maps["enrolled"], maps["exempt_cgroups"]
        self._listeners, self._original, self._presented = maps["listeners"], maps["original_dst"], maps["presented"]
        self._node_netns, self._by_address = maps["node_netns"], maps["pods_by_address"]
        self._dns_clients, self._last_resolver = maps["dns_clients"], maps["last_resolver"]

    @classmethod
    def open(cls, pins: Path) -> Capture:
        """Raises NotLoaded when there are no pins, or pins of another version."""
        directory = Pins(pins)
        maps: dict[str, Map] = {}
        try:
            for name in contract.MAPS:
                maps[name] = Map.open(directory.maps / name)
        except FileNotFoundError as missing:
            close_all(maps)
            raise NotLoaded(f"no eBPF programs are loaded at {pins}: run the loader first") from missing
        version = maps["contract"].lookup(bytes(4))
        if version != contract.CONTRACT_VERSION.to_bytes(4, sys.byteorder):
            close_all(maps)
            raise NotLoaded(f"the eBPF programs at {pins} are of another version: unload them and load again")
        return cls(directory, maps)

    def close(self) -> None:
        close_all(self._maps)

    def enrol(self, netns_cookie: int, addresses: Iterable[Ip] = ()) -> None:
        """From now on the pod's new connections go to the ztunnel in its network namespace. Raises OSError (E2BIG).

        Their local address is one of `addresses`, as without a mesh; 127.0.0.1 or ::1 where there is none.
        """
        pod = contract.pack_pod(addresses)
        self._forget_addresses(netns_cookie)
        self._enrolled.update(NUMBER.pack(netns_cookie), pod)
        for ip in contract.unpack_pod(pod):
            self._by_address.update(contract.pack_ip(ip), NUMBER.pack(netns_cookie))

    def withdraw(self, netns_cookie: int) -> None:
        self._forget_addresses(netns_cookie)
        self._enrolled.delete(NUMBER.pack(netns_cookie))
        self._last_resolver.delete(NUMBER.pack(netns_cookie))

    def enrolled(self) -> frozenset[int]:
        return frozenset(NUMBER.unpack(key)[0] for key in self._enrolled.snapshot())

    def exempt_node(self, netns_cookie: int) -> None:
        """What processes in this network namespace dial at the addresses of captured pods goes to the apps themselves.
        Only where the loader was told of the cgroup that such processes are in."""
        self._node_netns.update(bytes(4), NUMBER.pack(netns_cookie))

    def exempt(self, cgroup_id: int) -> None:
        """Processes of this cgroup (not of its children) dial for themselves, also inside enrolled pods."""
        self._exempt.update(NUMBER.pack(cgroup_id), PRESENT)

    def unexempt(self, cgroup_id: int) -> None:
        self._exempt.delete(NUMBER.pack(cgroup_id))

    def exempted(self) -> frozenset[int]:
        return frozenset(NUMBER.unpack(key)[0] for key in self._exempt.snapshot())

    def steer_inbound(self, ip: Ip, listener_fd: int) -> None:
        """New TCP connections to `ip` from outside an attached pod go to this listener, until it is closed.

        The listener must be in the pod's network namespace and already listen; one of AF_INET6 takes IPv4 too, unless
        it is IPv6-only. Raises OSError (EOPNOTSUPP for a socket that does not listen).
        """
        self._listeners.update(contract.pack_ip(ip), NUMBER.pack(listener_fd))

    def unsteer_inbound(self, ip: Ip) -> None:
        """New connections to `ip` are refused, if its pod is attached. Closing the listener does the same."""
        self._listeners.delete(contract.pack_ip(ip))

    def attach_inbound(self, netns_fd: int, name: str) -> None:
        """Steers what reaches this network namespace, until `detach_inbound` or its end. Again is no error.

        Raises ValueError for a name that cannot be pinned (no dots, no slashes), OSError.
        """
        pin = self._inbound_pin(name)
        with self._pins.locked(exclusive=False):
            if self._is_attached(pin, netns_fd):
                return
            self._remove_link(pin)
            program = syscalls.get(self._pins.programs / hooks.INBOUND.name)
            try:
                link = syscalls.link_create(program, netns_fd, hooks.INBOUND.attach_type)
            finally:
                os.close(program)
            try:
                replace(link, pin)
            finally:
                os.close(link)

    def detach_inbound(self, name: str) -> None:
        with self._pins.locked(exclusive=False):
            self._remove_link(self._inbound_pin(name))

    def attached_inbound(self) -> frozenset[str]:
        """Names of what was attached and not detached, also of pods that are gone since."""
        return frozenset(names(self._pins.inbound))

    def is_attached_to_living(self, name: str) -> bool:
        """Whether the network namespace that was attached under this name still exists."""
        pin = self._inbound_pin(name)
        if not pin.exists():
            return False
        link = syscalls.get(pin)
        try:
            return syscalls.link_info(link).target != 0
        finally:
            os.close(link)

    def original_destination(self, socket_fd: int) -> SocketAddress | None:
        """What the app dialled whose connection ztunnel has accepted as `socket_fd`; None: it did not dial elsewhere
        and was not captured, so there is nothing to forward to."""
        raw = self._original.lookup(DESCRIPTOR.pack(socket_fd))
        return None if raw is None else contract.unpack_endpoint(raw)

    def dns_resolver(self, netns_cookie: int, source: SocketAddress) -> SocketAddress | None:
        """The resolver meant by the query that was just received from `source` in this pod.

        Exact while the asking socket lives; else the one that the pod asked last. None: the pod was never captured.
        """
        raw = self._dns_clients.take(contract.pack_dns_client(netns_cookie, source))
        if raw is None:
            raw = self._last_resolver.lookup(NUMBER.pack(netns_cookie))
        return None if raw is None else contract.unpack_endpoint(raw)

    def present_client(self, socket_fd: int, client: SocketAddress) -> None:
        """Before connect(): the app that is dialled with this socket sees `client` as its peer."""
        self._presented.update(DESCRIPTOR.pack(socket_fd), contract.pack_endpoint(client))

    def counts(self) -> dict[str, int]:
        """Entries per map. What is kept with sockets is not counted: it ends with them."""
        kept = (contract.ARRAY, contract.SOCKET_STORAGE)
        return {
            name: len(self._maps[name].snapshot()) for name, layout in contract.MAPS.items() if layout.type not in kept
        }

    def _forget_addresses(self, netns_cookie: int) -> None:
        """Those that are still this pod's: another may have them since."""
        known = self._enrolled.lookup(NUMBER.pack(netns_cookie))
        for ip in contract.unpack_pod(known) if known else ():
            if self._by_address.lookup(contract.pack_ip(ip)) == NUMBER.pack(netns_cookie):
                self._by_address.delete(contract.pack_ip(ip))

    def _inbound_pin(self, name: str) -> Path:
        if not name or "/" in name or "." in name or name.endswith(NEXT):
            raise ValueError(f"{name!r} cannot be the name of a pin: no dots, no slashes, no {NEXT} at its end")
        return self._pins.inbound / name

    def _is_attached(self, pin: Path, netns_fd: int) -> bool:
        if not pin.exists():
            return False
        link = syscalls.get(pin)
        try:
            return syscalls.link_info(link).target == os.fstat(netns_fd).st_ino
        finally:
            os.close(link)

    def _remove_link(self, pin: Path) -> None:
        """Detaches at once, even if another process holds the link."""
        if not pin.exists():
            return
        link = syscalls.get(pin)
        try:
            syscalls.link_detach(link)
        except OSError as problem:
            if problem.errno != errno.ENOLINK:  # its network namespace is gone
                raise
        finally:
            os.close(link)
        pin.unlink()


def close_all(maps: dict[str, Map]) -> None:
    for opened in maps.values():
        opened.close()
