"""HBONE: tunnels as HTTP/2 CONNECT streams (RFC 9113), both ends, without IO, clock or chance.

A `Connection` is fed with decrypted bytes, calls its `Handler`, and stages bytes to be encrypted and sent:

    view = connection.receive_buffer(); connection.received(tls.read_into(view))     # handler calls happen in here
    if connection.staged: tls.write(connection.outgoing()); connection.sent()        # once per turn of the loop

Per byte of payload it does as little as it can: payload is received straight into the room behind its frame header
(`reserve`, `recv_into`, `commit`), all streams' frames of one turn leave in one write, and what arrives is handed on as
views of the receive buffer.

Rules for the user
- Nothing may come between `reserve` and its `commit`; to reserve and not to commit is fine (the read would block).
- Do not take `outgoing` while earlier ciphertext is still unsent: the staging buffer filling up is the back-pressure.
- `acknowledge` what the app took: credit for the stream goes back then, credit for the connection went back on receipt.
- Calls for a stream that is over do nothing; `reserve` gives None.
- A stream is over after `reset`, `stream_reset`, or END_STREAM both ways; the last makes no call of its own.
- `ping` regularly (Istio: every 10 s): it starts a new period for the flood limits.
- After ConnectionFailed (raised by `received`, or seen as `failure`): write what is staged, close, abort all streams.
- A server reads the request with `ConnectRequest.parse` and says `respond(stream, 200)` once the app is connected.
"""

from .connect import BadRequest, ConnectRequest
from .connection import Connection, GoingAway, TooManyStreams
from .core import Handler
from .frames import ConnectionFailed, ErrorCode
from .limits import CLIENT_LIMITS, SERVER_LIMITS, FloodLimits, Limits, Role
from .windows import Budget

__all__ = [
    "CLIENT_LIMITS",
    "SERVER_LIMITS",
    "BadRequest",
    "Budget",
    "ConnectRequest",
    "Connection",
    "ConnectionFailed",
    "ErrorCode",
    "FloodLimits",
    "GoingAway",
    "Handler",
    "Limits",
    "Role",
    "TooManyStreams",
]
