"""Connections between two enrolled pods, through the tunnel of two workers, as their apps see them."""

from __future__ import annotations

import pytest

from tests.worker.node import V4, V6, Node, echo, read_all, serving

pytestmark = pytest.mark.root


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_what_is_said_comes_back(node: Node, family: int) -> None:
    client, _ = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(8080, family), echo)
    with node.a.dial(node.b.address(8080, family)) as app:
        app.sendall(b"hello")
        assert app.recv(100) == b"hello"
        app.shutdown(1)
        assert read_all(app) == b""
    record = client.ended()
    assert (record.protocol, record.sent, record.received, record.error) == ("HBONE", 5, 5, "")
    assert record.destination_identity == node.b.identity
