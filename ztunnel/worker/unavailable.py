"""The answer to a request of HTTP/1 whose waypoint is away."""

from __future__ import annotations

import socket

from ztunnel.plan.unanswered import MOST, Unanswered
from ztunnel.worker.lingering import Lingering


def answer(lingering: Lingering, sock: socket.socket, asked: bytes, reason: str) -> bool:
    """Whether the app has asked something, `asked` or what waits in its socket: then it gets a 503 with the reason, and
    the socket is taken over."""
    if not asked:
        try:
            asked = sock.recv(MOST)
        except OSError:
            return False
    request = Unanswered()
    request.said(asked)
    return request.answerable and answer_now(lingering, sock, reason)


def answer_now(lingering: Lingering, sock: socket.socket, reason: str) -> bool:
    """As `answer`, for an app that is known to wait. False when it takes nothing."""
    body = f"{reason}\n".encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    try:
        sock.send(head.encode() + body)
    except OSError:
        return False
    lingering.close(sock)
    return True
