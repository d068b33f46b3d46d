"""A recording handler, and two connections that talk to each other in memory."""

from __future__ import annotations

from typing import Any

from mesh.hbone import Budget, Connection, ErrorCode, Limits, Role


class Recorder:
    """Keeps every call as a tuple; neighbouring data of one stream is one event, however it was cut."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.bytes: dict[int, bytearray] = {}

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        self.events.append(("request", stream, headers, ended))

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        self.events.append(("response", stream, status, headers, ended))

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        data = b"".join(pieces)
        assert data, "an empty call"
        self.bytes.setdefault(stream, bytearray()).extend(data)
        if self.events and self.events[-1][:2] == ("data", stream):
            data = self.events.pop()[2] + data
        self.events.append(("data", stream, data))

    def stream_ended(self, stream: int) -> None:
        self.events.append(("ended", stream))

    def stream_reset(self, stream: int, code: int) -> None:
        self.events.append(("reset", stream, ErrorCode(code) if code in set(ErrorCode) else code))

    def stream_writable(self, stream: int) -> None:
        self.events.append(("writable", stream))

    def connection_writable(self) -> None:
        self.events.append(("writable",))

    def limits_changed(self) -> None:
        self.events.append(("limits",))

    def ping_acknowledged(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None:
        self.events.append(("goaway", last_stream, code, reason))

    def take(self) -> list[tuple[Any, ...]]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events

    def taken(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [event for event in self.take() if event[0] in kinds]


def feed(connection: Connection, data: bytes, step: int | None = None) -> None:
    """Hands bytes to a connection, in steps of any size."""
    at = 0
    while at < len(data):
        room = connection.receive_buffer()
        size = min(len(room), len(data) - at, step or len(data))
        room[:size] = data[at : at + size]
        connection.received(size)
        at += size


def drain(connection: Connection) -> bytes:
    """Takes everything that is staged."""
    data = bytes(connection.outgoing())
    connection.sent()
    return data


def send(connection: Connection, stream: int, data: bytes, end: bool = False) -> int:
    """Sends as much as credit and room allow; how much that was."""
    sent = 0
    while room := connection.reserve(stream):
        size = min(len(room), len(data) - sent)
        room[:size] = data[sent : sent + size]
        sent += size
        connection.commit(stream, size, end and sent == len(data))
        if sent == len(data):
            break
    else:
        if not data:
            connection.commit(stream, 0, end)
    return sent


class Pair:
    """A client and a server whose bytes move when `exchange` is called."""

    def __init__(
        self, client: Limits | None = None, server: Limits | None = None, server_budget: Budget | None = None
    ) -> None:
        self.at_client, self.at_server = Recorder(), Recorder()
        self.client = Connection(Role.CLIENT, self.at_client, client)
        self.server = Connection(Role.SERVER, self.at_server, server, budget=server_budget)

    def exchange(self, step: int | None = None) -> None:
        """Until neither has anything to say."""
        while self.client.staged or self.server.staged:
            feed(self.server, drain(self.client), step)
            feed(self.client, drain(self.server), step)

    def tunnel(self, authority: str = "10.0.0.1:80") -> int:
        """An established tunnel; its stream. Forgets the events so far."""
        stream = self.client.open(authority)
        self.exchange()
        self.server.respond(stream, 200)
        self.exchange()
        self.at_client.take()
        self.at_server.take()
        return stream
