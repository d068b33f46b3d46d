"""Making and reading DNS messages in tests, with dnslib on the other side of what is tested."""

from __future__ import annotations

from dnslib import EDNS0, QTYPE, RCODE, DNSQuestion, DNSRecord

from ztunnel.dns.message import Question, parse_query


def query(name: str, kind: str = "A", number: int = 4711, payload: int | None = None) -> bytes:
    record = DNSRecord(q=DNSQuestion(name, getattr(QTYPE, kind)))
    record.header.id = number
    if payload is not None:
        record.add_ar(EDNS0(udp_len=payload))
    return bytes(record.pack())


def question(name: str, kind: str = "A") -> Question:
    found = parse_query(query(name, kind)).question
    assert found is not None
    return found


def addresses(message: bytes) -> list[str]:
    return sorted(str(rr.rdata) for rr in DNSRecord.parse(message).rr if rr.rtype in (QTYPE.A, QTYPE.AAAA))


def code(message: bytes) -> str:
    return str(RCODE[DNSRecord.parse(message).header.rcode])
