"""How a secured connection can fail; the text of each says why in words."""

from __future__ import annotations


class TlsFailed(Exception):
    """The handshake failed, or a record was not valid."""


class TlsClosed(Exception):
    """The peer has ended the connection: nothing more will come."""


class PeerRejected(Exception):
    """TLS is fine, but the peer is not who it must be."""
