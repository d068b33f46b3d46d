"""A client of HBONE that is not ours: Python's ssl sockets and the h2 library, blocking."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from mesh.identity.tls import TlsIdentity
from mesh.model import ports
from tests.worker.node import Pod


def tls_socket(client: Pod, server: Pod, identity: TlsIdentity | None, *, alpn: str = "h2") -> ssl.SSLSocket:
    """A TLS connection to the server pod's port 15008. In TLS 1.3 a refused client learns it at its first read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    if identity is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "identity.pem"
            path.write_bytes(identity.chain + b"\n" + identity.private_key)
            context.load_cert_chain(path)
    sock = client.socket()
    sock.connect((server.ip4, ports.HBONE))
    return context.wrap_socket(sock)


class HboneClient:
    """One connection; answers are collected until something that is asked for has come."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._http = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self._http.initiate_connection()
        self.events: list[Event] = []
        self._flush()

    def connect(self, authority: str, *headers: tuple[str, str], method: str = "CONNECT") -> int:
        stream: int = self._http.get_next_available_stream_id()
        pseudo = [(":method", method), (":authority", authority)]
        if method != "CONNECT":
            pseudo += [(":scheme", "https"), (":path", "/")]
        self._http.send_headers(stream, [*pseudo, *headers])
        self._flush()
        return stream

    def status(self, stream: int) -> int:
        return int(self.headers(stream)[":status"])

    def headers(self, stream: int) -> dict[str, str]:
        event = self._wait(ResponseReceived, stream)
        return {_text(name): _text(value) for name, value in event.headers}  # type: ignore[attr-defined]

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        self._http.send_data(stream, data, end_stream=end)
        self._flush()

    def reset(self, stream: int, code: int = 8) -> None:
        self._http.reset_stream(stream, code)
        self._flush()

    def received(self, stream: int, size: int) -> bytes:
        while len(data := self._data(stream)) < size:
            self._read()
        return data

    def wait_for_end(self, stream: int) -> None:
        self._wait(StreamEnded, stream)

    def wait_for_reset(self, stream: int) -> int:
        return int(self._wait(StreamReset, stream).error_code)  # type: ignore[attr-defined]

    def wait_for_goaway(self) -> ConnectionTerminated:
        while True:
            for event in self.events:
                if isinstance(event, ConnectionTerminated):
                    return event
            self._read()

    def wait_for_close(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._read()

    def close(self) -> None:
        self._sock.close()

    def _data(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, DataReceived) and e.stream_id == stream)

    def _wait(self, kind: type[Event], stream: int) -> Event:
        while True:
            for event in self.events:
                if isinstance(event, kind) and event.stream_id == stream:  # type: ignore[attr-defined]
                    return event
            self._read()

    def _read(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise EOFError("the server closed the connection")
        events = self._http.receive_data(data)
        if any(isinstance(event, ConnectionTerminated) for event in events):
            # The library ends with GOAWAY; HTTP/2 lets open streams go on (RFC 9113 section 6.8).
            self._http.state_machine.state = ConnectionState.CLIENT_OPEN
        for event in events:
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += events
        self._flush()

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data:
            self._sock.sendall(data)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def refused(sock: socket.socket) -> bool:
    """Whether the server ends the connection without a byte of HTTP/2."""
    try:
        return sock.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True
