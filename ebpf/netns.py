"""Network namespaces: their cookies, and doing things inside them."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from ebpf import syscalls

CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since Linux 5.14; not in Python's socket module

Result = TypeVar("Result")


def setns(netns_fd: int) -> None:
    """Moves this thread into a network namespace. Raises OSError."""
    if syscalls.libc.setns(netns_fd, CLONE_NEWNET):
        raise syscalls.failure("setns")


def in_netns(netns_fd: int, action: Callable[[], Result]) -> Result:
    """What `action` returns (or raises) on a thread of its own inside the namespace; sockets it makes stay there."""
    results: list[Result] = []
    problems: list[BaseException] = []

    def body() -> None:
        try:
            setns(netns_fd)
            results.append(action())
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=body, name="in-netns")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]


def own_cookie() -> int:
    """The cookie of this thread's network namespace: unique until the machine restarts, never used again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


def netns_cookie(netns: int | os.PathLike[str]) -> int:
    """The cookie of a network namespace, by descriptor or by path (/proc/PID/ns/net, /run/netns/NAME)."""
    if isinstance(netns, int):
        return in_netns(netns, own_cookie)
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return in_netns(descriptor, own_cookie)
    finally:
        os.close(descriptor)
