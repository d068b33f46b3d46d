"""DNS messages (RFC 1035, EDNS of RFC 6891): reading what an app asks, writing what the mesh knows.

By hand, not with a library: apps send what they like, and this walks each byte once, follows no pointer and raises
nothing but Malformed; an answer with a thousand endpoints must not keep other pods' bytes waiting. What is forwarded
stays as it came, but for its number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mesh.model.address import Ip, packed

A_RECORD, CNAME_RECORD, AAAA_RECORD, OPT_RECORD = 1, 5, 28, 41
INTERNET = 1
FORMAT_ERROR, SERVER_FAILURE = 1, 2
TTL = 30  # seconds: Istio's. Short, as pods come and go
PLAIN_PAYLOAD = 512  # what a client without EDNS takes over UDP
LARGEST_PAYLOAD = 4096  # what is answered over UDP at most; it never leaves the loopback interface
LARGEST_MESSAGE = 65535

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHHIH")  # name, type, class, TTL, length of the data that follows
_OPTIONS = struct.Struct("!BHHIH")  # the same with the empty name of the root
_RESPONSE, _OPCODE, _AUTHORITATIVE, _TRUNCATED = 0x8000, 0x7800, 0x0400, 0x0200
_RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x0100, 0x0080
_SMALLEST_RECORD = _RECORD.size + 4
_POINTER = 0xC000  # a name that stands at that offset of the message
_LONGEST_NAME = 255


class Malformed(ValueError):
    """A query that breaks RFC 1035; the text says where."""


@dataclass(frozen=True, slots=True)
class Question:
    labels: tuple[bytes, ...]  # as asked, in the asked case
    kind: int
    scope: int  # the class, nearly always IN

    @property
    def name(self) -> str:
        """In lower case, without the last dot; "" when it is no hostname."""
        try:
            return b".".join(self.labels).decode("ascii").lower()
        except UnicodeDecodeError:
            return ""


@dataclass(frozen=True, slots=True)
class Query:
    number: int
    recursion: bool
    question: Question | None  # None: not a plain QUERY with one question
    payload: int | None = None  # EDNS: what the client takes over UDP; None without EDNS


@dataclass(frozen=True, slots=True)
class Records:
    """What the mesh answers: addresses of the asked name, or of the `alias` that it stands for. Maybe none."""

    addresses: tuple[Ip, ...] = ()
    alias: str = ""


def is_query(data: bytes) -> bool:
    """Whether it has a header that an answer can be made for."""
    return len(data) >= _HEADER.size and not _flags(data) & _RESPONSE


def parse_query(data: bytes) -> Query:
    """Raises Malformed; only for what `is_query` accepts."""
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    recursion = bool(flags & _RECURSION_DESIRED)
    if flags & _OPCODE or questions != 1 or answers or authorities:
        return Query(number, recursion, None)
    question, offset = _read_question(data, _HEADER.size)
    payload = None
    for _ in range(additional):
        kind, size, extension, offset = _read_record(data, offset)
        if kind == OPT_RECORD and extension >> 16 & 0xFF:  # an EDNS version that only the real resolver may know
            return Query(number, recursion, None)
        if kind == OPT_RECORD:
            payload = size
    return Query(number, recursion, question, payload)


def build_reply(query: Query, records: Records, limit: int) -> bytes:
    """An authoritative answer, cut to whole records and marked as truncated where `limit` bytes do not suffice."""
    assert query.question is not None
    question = _encoded_name(query.question.labels) + struct.pack("!HH", query.question.kind, query.question.scope)
    options = b"" if query.payload is None else _OPTIONS.pack(0, OPT_RECORD, LARGEST_PAYLOAD, 0, 0)
    alias, owner = _alias_record(records.alias, _HEADER.size + len(question)) if records.alias else (b"", _HEADER.size)
    room = limit - _HEADER.size - len(question) - len(alias) - len(options)
    answers = [_address_record(owner, ip) for ip in records.addresses[: room // _SMALLEST_RECORD]]
    fitting = answers[: room // len(answers[0])] if answers else []
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (_RECURSION_DESIRED if query.recursion else 0)
    if len(fitting) < len(records.addresses):
        flags |= _TRUNCATED
    header = _HEADER.pack(query.number, flags, 1, len(fitting) + bool(alias), 0, bool(options))
    return b"".join((header, question, alias, *fitting, options))


def payload_limit(query: Query) -> int:
    """How many bytes the client takes over UDP."""
    return min(max(query.payload or 0, PLAIN_PAYLOAD), LARGEST_PAYLOAD)


def build_failure(data: bytes, code: int) -> bytes:
    """An answer to the query `data` that says only that it failed; the question is repeated if it can be read."""
    number, flags, questions, *_ = _HEADER.unpack_from(data)
    flags = _RESPONSE | flags & (_OPCODE | _RECURSION_DESIRED) | _RECURSION_AVAILABLE | code
    try:
        end = _read_question(data, _HEADER.size)[1] if questions == 1 else _HEADER.size
    except Malformed:
        end = _HEADER.size
    return _HEADER.pack(number, flags, int(end > _HEADER.size), 0, 0, 0) + data[_HEADER.size : end]


def renumbered(data: bytes, number: int) -> bytes:
    return number.to_bytes(2, "big") + data[2:]


def number_of(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


def answers(response: bytes, query: bytes) -> bool:
    """Whether `response` belongs to `query`: its number and, unless it failed without one, its question."""
    if len(response) < _HEADER.size or not _flags(response) & _RESPONSE or response[:2] != query[:2]:
        return False
    if (_flags(response) ^ _flags(query)) & _OPCODE:
        return False
    if response[4:6] == b"\0\0":  # a failure, or one of other operations, may leave the question out (RFC 2136 3.8)
        return query[4:6] == b"\0\0" or bool(_flags(response) & (0xF | _OPCODE))
    try:
        asked, answered = (_read_question(each, _HEADER.size)[0] for each in (query, response))
    except Malformed:
        return False
    return (asked.kind, asked.scope, *map(bytes.lower, asked.labels)) == (
        answered.kind,
        answered.scope,
        *map(bytes.lower, answered.labels),
    )


def _flags(data: bytes) -> int:
    return int.from_bytes(data[2:4], "big")


def _read_question(data: bytes, offset: int) -> tuple[Question, int]:
    labels = []
    start = offset
    while True:
        length = _byte(data, offset)
        if length == 0:
            break
        if length > 63:
            raise Malformed(f"a label of {length} bytes or a pointer at byte {offset} of a question")
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length
        if offset - start >= _LONGEST_NAME:
            raise Malformed("a name longer than 255 bytes")
    if len(data) < offset + 5:
        raise Malformed(f"the question ends after {len(data)} bytes")
    kind, scope = struct.unpack_from("!HH", data, offset + 1)
    return Question(tuple(labels), kind, scope), offset + 5


def _read_record(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """Type, class and TTL of an additional record, and where the next one begins."""
    while (length := _byte(data, offset)) and length < 64:
        offset += 1 + length
    offset += 2 if length else 1  # a pointer ends a name
    if len(data) < offset + 10:
        raise Malformed(f"an additional record ends after {len(data)} bytes")
    kind, scope, lifetime, length = struct.unpack_from("!HHIH", data, offset)
    if len(data) < offset + 10 + length:
        raise Malformed(f"an additional record ends after {len(data)} bytes")
    return kind, scope, lifetime, offset + 10 + length


def _byte(data: bytes, offset: int) -> int:
    if offset >= len(data):
        raise Malformed(f"a name ends after {len(data)} bytes")
    return data[offset]


def _encoded_name(labels: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _alias_record(alias: str, offset: int) -> tuple[bytes, int]:
    """The CNAME at `offset` from the asked name to `alias`, and a pointer to the latter for the records that follow."""
    name = _encoded_name(tuple(alias.encode("ascii").split(b".")))
    record = _RECORD.pack(_POINTER | _HEADER.size, CNAME_RECORD, INTERNET, TTL, len(name)) + name
    return record, offset + _RECORD.size


def _address_record(owner: int, ip: Ip) -> bytes:
    data = packed(ip)
    kind = A_RECORD if len(data) == 4 else AAAA_RECORD
    return _RECORD.pack(_POINTER | owner, kind, INTERNET, TTL, len(data)) + data
