"""Programs that tests run in pods, as `python -c`."""

from __future__ import annotations

import subprocess
import sys

from tests.agent.node import Node, TestPod

ECHO = """
import socket, socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128
server = Server(("::", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
"""

# For each line that comes in, the echo of one word through a new or the standing connection, or the error.
CLIENT = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
standing = None
for line in sys.stdin:
    try:
        if line.strip() == "new" or standing is None:
            standing = socket.create_connection((host, port), timeout=15)
        standing.sendall(b"word")
        print("ok" if standing.recv(100) == b"word" else "closed", flush=True)
    except OSError as error:
        standing = None
        print(f"failed {error}", flush=True)
"""


class Client:
    """An app in a pod that talks to an echo server."""

    def __init__(self, node: Node, pod: TestPod, host: str, port: int) -> None:
        self._process = node.spawn(
            "pods",
            pod.netns,
            [sys.executable, "-c", CLIENT, host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def new(self) -> str:
        """ "ok" when a new connection carries a word there and back."""
        return self._ask("new")

    def again(self) -> str:
        """The same on the connection that stands."""
        return self._ask("again")

    def _ask(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()


def echo_server(node: Node, pod: TestPod, port: int) -> None:
    process = node.spawn("pods", pod.netns, [sys.executable, "-c", ECHO, str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
