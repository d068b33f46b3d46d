"""The real worker, but told by a directory of files what captured connections were meant for.

For tests that are not about capture: they connect to the outbound listener themselves, after they wrote a file named
after their source port which holds the destination.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from mesh.model.address import SocketAddress
from ztunnel.worker.main import serve
from ztunnel.worker.settings import Settings


class LedgerCapture:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def original_destination(self, socket_fd: int) -> SocketAddress | None:
        with socket.socket(fileno=os.dup(socket_fd)) as sock:
            port = sock.getpeername()[1]
        try:
            text = (self._directory / str(port)).read_text()
        except FileNotFoundError:
            return None
        return SocketAddress.parse(text)

    def present_client(self, socket_fd: int, client: SocketAddress) -> None:
        """What the app sees is a matter of capture."""

    def dns_resolver(self, netns_cookie: int, source: SocketAddress) -> SocketAddress | None:
        return None


if __name__ == "__main__":
    serve(
        socket.socket(fileno=int(sys.argv[2])), LedgerCapture(Path(sys.argv[1])), Settings.from_environment(os.environ)
    )
