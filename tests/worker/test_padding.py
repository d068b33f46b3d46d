"""DATA with padding from a peer that is not ours (RFC 9113 section 6.1), to both of our roles: the app gets none of it,
and the credit for it comes back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
from h2.connection import H2Connection

from tests.worker.hbone_client import HboneClient, tls_socket
from tests.worker.hbone_server import HboneServer
from tests.worker.node import Node, in_background, read_all, serving

pytestmark = pytest.mark.root

PORT = 8080
PIECES = [random.Random(1).randbytes(size) for size in (0, 1, 100, 5000)] * 800
SAID = b"".join(PIECES)  # 4 MB, and a lot of padding: more than any first window


def send_padded(http: H2Connection, stream: int, flush: Callable[[], None], read: Callable[[], None]) -> None:
    for index, piece in enumerate(PIECES):
        padding = (0, 1, 255)[index % 3]
        while http.local_flow_control_window(stream) < len(piece) + padding + 1:
            read()
        http.send_data(stream, piece, pad_length=padding)
        flush()
    http.end_stream(stream)
    flush()


def test_from_a_client(node: Node) -> None:
    node.worker(node.b)
    heard: list[str] = []
    serving(node.b.listen(PORT), lambda sock: heard.append(hashlib.sha256(read_all(sock)).hexdigest()))
    client = HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    assert client.status(stream) == 200
    send_padded(client._http, stream, client._flush, client._read)
    client.wait_for_end(stream)  # the app has read everything, and closed
    assert heard == [hashlib.sha256(SAID).hexdigest()]
    client.close()


def test_from_a_server(node: Node) -> None:
    server = HboneServer(node.b, node.certificate(node.b.identity))
    node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        peer = server.accept()
        stream = peer.request().stream_id
        assert stream is not None
        peer.answer(stream)
        sender = in_background(lambda: send_padded(peer.http, stream, peer.flush, peer.read))
        assert hashlib.sha256(read_all(app)).digest() == hashlib.sha256(SAID).digest()
        sender.join()
