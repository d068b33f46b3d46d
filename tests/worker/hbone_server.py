"""A server of HBONE that is not ours, which does as the test wishes: ssl sockets and the h2 library, blocking."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import time
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset

from mesh.identity.tls import TlsIdentity
from mesh.model import ports
from tests.worker.node import PATIENCE, V4, Pod


class HboneServer:
    """Listens at the pod's port 15008; `accept` gives the next tunnel."""

    def __init__(self, pod: Pod, identity: TlsIdentity, family: int = V4) -> None:
        self._listener = pod.listen(ports.HBONE, family)
        self._listener.settimeout(PATIENCE)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2"])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=identity.roots.decode())
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "identity.pem"
            path.write_bytes(identity.chain + b"\n" + identity.private_key)
            self._context.load_cert_chain(path)

    def accept(self) -> HbonePeer:
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE)
        return HbonePeer(self._context.wrap_socket(sock, server_side=True))

    def accept_nothing(self, seconds: float) -> bool:
        """Whether no tunnel is opened for a while."""
        self._listener.settimeout(seconds)
        try:
            self._listener.accept()
        except TimeoutError:
            return True
        finally:
            self._listener.settimeout(PATIENCE)
        return False


class HbonePeer:
    """One tunnel; events are collected until something that is asked for has come."""

    def __init__(self, sock: ssl.SSLSocket, **settings: int) -> None:
        self.sock = sock
        self.http = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
        self.http.initiate_connection()
        self.events: list[Event] = []
        self.flush()

    def request(self) -> RequestReceived:
        """The next CONNECT."""
        while True:
            for event in self.events:
                if isinstance(event, RequestReceived):
                    self.events.remove(event)
                    return event
            self.read()

    def answer(self, stream: int, status: int = 200, end: bool = False) -> None:
        self.http.send_headers(stream, [(":status", str(status))], end_stream=end)
        self.flush()

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        self.http.send_data(stream, data, end_stream=end)
        self.flush()

    def end(self, stream: int) -> None:
        self.send(stream, b"", end=True)

    def reset(self, stream: int, code: int) -> None:
        self.http.reset_stream(stream, code)
        self.flush()

    def go_away(self, last_stream: int) -> None:
        """The frame itself: the library would end the connection with it."""
        frame = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last_stream.to_bytes(4, "big") + bytes(4)
        self.sock.sendall(frame)

    def received(self, stream: int, size: int) -> bytes:
        while True:
            data = b"".join(e.data for e in self.events if isinstance(e, DataReceived) and e.stream_id == stream)
            if len(data) >= size:
                return data
            self.read()

    def wait_for_end(self, stream: int) -> None:
        self._wait(StreamEnded, stream)

    def wait_for_reset(self, stream: int) -> int:
        return int(self._wait(StreamReset, stream).error_code)  # type: ignore[attr-defined]

    def wait_for_close(self) -> None:
        deadline = time.monotonic() + PATIENCE  # PINGs keep coming
        with contextlib.suppress(EOFError, ConnectionError):
            while time.monotonic() < deadline:
                self.read()
            raise AssertionError("the client does not close the tunnel")

    def _wait(self, kind: type[Event], stream: int) -> Event:
        while True:
            for event in self.events:
                if isinstance(event, kind) and event.stream_id == stream:  # type: ignore[attr-defined]
                    return event
            self.read()

    def read(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the client closed the connection")
        events = self.http.receive_data(data)
        for event in events:
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += events
        self.flush()

    def flush(self) -> None:
        data = self.http.data_to_send()
        if data:
            self.sock.sendall(data)

    def kill(self) -> None:
        """Without a word, as a process that is killed."""
        plain = socket.socket(fileno=self.sock.detach())
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        plain.close()


def fields(request: RequestReceived) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in request.headers or ()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
