"""DNS messages (RFC 1035, EDNS of RFC 6891): reading what an app asks, writing what the mesh knows.

Queries are read by hand: apps send what they like, and this walks each byte once, follows no pointer and never raises
anything but Malformed. What is forwarded stays as it came, but for its number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dnslib import AAAA, CLASS, CNAME, EDNS0, QTYPE, RR, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from mesh.model.address import Ip, is_v6

A_RECORD, AAAA_RECORD, OPT_RECORD = QTYPE.A, QTYPE.AAAA, QTYPE.OPT
INTERNET = CLASS.IN
FORMAT_ERROR, SERVER_FAILURE = 1, 2
TTL = 30  # seconds: Istio's. Short, as pods come and go
PLAIN_PAYLOAD = 512  # what a client without EDNS takes over UDP
LARGEST_PAYLOAD = 4096  # what is answered over UDP at most; it never leaves the loopback interface
LARGEST_MESSAGE = 65535

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _OPCODE, _AUTHORITATIVE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x7800, 0x0400, 0x0100, 0x0080
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
    asked = DNSLabel(query.question.labels)
    owner = DNSLabel(records.alias) if records.alias else asked
    heads = [RR(asked, QTYPE.CNAME, ttl=TTL, rdata=CNAME(owner))] if records.alias else []
    answers = [_address_record(owner, ip) for ip in records.addresses]
    reply = _pack(query, heads + answers, truncated=False)
    if len(reply) <= limit:
        return reply
    least = len(_pack(query, heads, truncated=True))
    each = (len(reply) - least) // len(answers)
    return _pack(query, heads + answers[: max(0, (limit - least) // each)], truncated=True)


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
    if response[4:6] == b"\0\0":
        return query[4:6] == b"\0\0" or bool(_flags(response) & 0xF)
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


def _address_record(owner: DNSLabel, ip: Ip) -> RR:
    if is_v6(ip):
        return RR(owner, QTYPE.AAAA, ttl=TTL, rdata=AAAA(ip))
    return RR(owner, QTYPE.A, ttl=TTL, rdata=A(ip))


def _pack(query: Query, records: list[RR], truncated: bool) -> bytes:
    assert query.question is not None
    asked = query.question
    header = DNSHeader(id=query.number, qr=1, aa=1, ra=1, rd=int(query.recursion), tc=int(truncated), bitmap=0)
    question = DNSQuestion(DNSLabel(asked.labels), asked.kind, asked.scope)
    options = [EDNS0(udp_len=LARGEST_PAYLOAD)] if query.payload is not None else []
    return bytes(DNSRecord(header, questions=[question], rr=records, ar=options).pack())
