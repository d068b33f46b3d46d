"""A TCP proxy on loopback, whose connections can be cut and whose door can be closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    def __init__(self, to: int) -> None:
        self._to = to
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = 0
        self.open_door()

    def open_door(self) -> None:
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close_door(self) -> None:
        """New connections are refused, and those that stand are cut."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        with self._lock:
            for each in self._open:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # its peer was faster

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, to: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                to.sendall(data)
        except OSError:
            pass  # cut
        with self._lock:
            for each in (source, to):
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._open.discard(source)
            source.close()


@contextmanager
def proxy(to: int) -> Iterator[Proxy]:
    found = Proxy(to)
    try:
        yield found
    finally:
        found.close_door()
