"""DNS messages, with dnslib as the peer, and whatever else may arrive."""

from __future__ import annotations

import struct

import pytest
from dnslib import EDNS0, QTYPE, RR, A, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.address import Ip
from tests.dns.asking import addresses, code, query
from ztunnel.dns.message import (
    FORMAT_ERROR,
    LARGEST_MESSAGE,
    Malformed,
    Records,
    answers,
    build_failure,
    build_reply,
    is_query,
    parse_query,
    payload_limit,
    renumbered,
)

MANY = tuple(Ip(f"240.0.0.{number}") for number in range(256))


def test_a_query_is_read() -> None:
    found = parse_query(query("Web.Ns1.svc.cluster.local", "AAAA", number=7))
    assert found.number == 7
    assert found.recursion
    assert found.question is not None
    assert found.question.name == "web.ns1.svc.cluster.local"
    assert found.question.kind == QTYPE.AAAA
    assert found.payload is None


def test_a_reply_answers_the_name_as_it_was_asked() -> None:
    asked = query("Web.Ns1", number=99)
    reply = DNSRecord.parse(build_reply(parse_query(asked), Records((Ip("10.0.0.1"), Ip("10.0.0.2"))), 512))
    assert (reply.header.id, reply.header.qr, reply.header.aa, reply.header.ra, reply.header.rd) == (99, 1, 1, 1, 1)
    assert reply.header.tc == 0
    assert str(reply.q.qname) == "Web.Ns1."
    assert [(str(rr.rname), rr.ttl, str(rr.rdata)) for rr in reply.rr] == [
        ("Web.Ns1.", 30, "10.0.0.1"),
        ("Web.Ns1.", 30, "10.0.0.2"),
    ]


def test_an_alias_is_a_cname_and_its_addresses() -> None:
    asked = query("web.ns1.ns1.svc.cluster.local", "AAAA")
    reply = DNSRecord.parse(build_reply(parse_query(asked), Records((Ip("fd00::1"),), "web.ns1"), 512))
    assert [(str(rr.rname), QTYPE[rr.rtype], str(rr.rdata)) for rr in reply.rr] == [
        ("web.ns1.ns1.svc.cluster.local.", "CNAME", "web.ns1."),
        ("web.ns1.", "AAAA", "fd00::1"),
    ]


def test_no_addresses_are_a_clean_empty_answer() -> None:
    reply = build_reply(parse_query(query("web")), Records(), 512)
    assert code(reply) == "NOERROR"
    assert addresses(reply) == []


@pytest.mark.parametrize(
    ("payload", "limit"), [(None, 512), (100, 512), (512, 512), (1232, 1232), (4096, 4096), (65535, 4096)]
)
def test_how_much_a_client_takes(payload: int | None, limit: int) -> None:
    assert payload_limit(parse_query(query("web", payload=payload))) == limit


@pytest.mark.parametrize("payload", [None, 1232])
@pytest.mark.parametrize("alias", ["", "large.ns1"])
def test_a_large_answer_is_cut_to_whole_records_and_marked(payload: int | None, alias: str) -> None:
    asked = parse_query(query("large.ns1.svc.cluster.local", payload=payload))
    data = build_reply(asked, Records(MANY, alias), payload_limit(asked))
    reply = DNSRecord.parse(data)
    assert reply.header.tc == 1
    assert payload_limit(asked) - 16 < len(data) <= payload_limit(asked)
    assert set(addresses(data)) < set(MANY)
    assert [QTYPE[each.rtype] for each in reply.ar] == (["OPT"] if payload else [])


def test_over_tcp_nothing_is_cut() -> None:
    data = build_reply(parse_query(query("large")), Records(MANY), LARGEST_MESSAGE)
    assert DNSRecord.parse(data).header.tc == 0
    assert set(addresses(data)) == set(MANY)


# --- queries that are not plain ones


def with_flags(data: bytes, flags: int) -> bytes:
    return data[:2] + struct.pack("!H", flags) + data[4:]


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_operations_than_query_are_left_to_the_resolver(opcode: int) -> None:
    data = with_flags(query("web"), opcode << 11)
    assert is_query(data)
    assert parse_query(data).question is None


def test_several_questions_or_none_are_left_to_the_resolver() -> None:
    two = DNSRecord(q=DNSQuestion("a"))
    two.add_question(DNSQuestion("b"))
    assert parse_query(bytes(two.pack())).question is None
    assert parse_query(bytes(DNSRecord().pack())).question is None


def test_an_unknown_version_of_edns_is_left_to_the_resolver() -> None:
    record = DNSRecord(q=DNSQuestion("web"))
    record.add_ar(EDNS0(version=1))
    assert parse_query(bytes(record.pack())).question is None


def test_responses_and_scraps_are_no_queries() -> None:
    assert not is_query(with_flags(query("web"), 0x8180))
    assert not is_query(b"")
    assert not is_query(query("web")[:11])


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\x03web",
        b"\x03web\x00",
        b"\x03web\x00\x00\x01\x00",
        b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",
        b"\xc0\x0c\x00\x01\x00\x01",
        (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",
    ],
)
def test_malformed_questions_get_a_format_error(question: bytes) -> None:
    data = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question
    with pytest.raises(Malformed):
        parse_query(data)
    reply = build_failure(data, FORMAT_ERROR)
    assert code(reply) == "FORMERR"
    assert DNSRecord.parse(reply).header.id == 7


def test_additional_records_that_end_early_are_malformed() -> None:
    data = query("web", payload=1232)
    for end in range(len(data) - 11, len(data)):
        with pytest.raises(Malformed):
            parse_query(data[:end])


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    if is_query(data):
        try:
            parse_query(data)
        except Malformed:
            pass
        DNSRecord.parse(build_failure(data, FORMAT_ERROR))
    answers(data, query("web"))


@given(st.binary(min_size=1, max_size=300), st.integers(0, 3))
def test_any_additional_section_is_read_or_malformed(rest: bytes, count: int) -> None:
    data = bytearray(query("web") + rest)
    data[11] = count
    try:
        parse_query(bytes(data))
    except Malformed:
        pass


# --- responses from resolvers


def response_to(data: bytes, name: str = "web.example.com", kind: int = QTYPE.A) -> bytes:
    reply = DNSRecord.parse(data).reply()
    reply.questions[0] = DNSQuestion(name, kind)
    reply.add_answer(RR(name, rdata=A("1.2.3.4")))
    return bytes(reply.pack())


def test_what_answers_a_query() -> None:
    asked = query("web.example.com", number=5)
    assert answers(response_to(asked), asked)
    assert answers(response_to(asked, "WEB.example.COM"), asked)
    assert answers(build_failure(asked, 2), asked)
    assert answers(build_failure(asked[:12], 1)[:12], asked)  # without the question, as it had failed to read it


def test_what_does_not() -> None:
    asked = query("web.example.com", number=5)
    good = response_to(asked)
    assert not answers(renumbered(good, 6), asked)
    assert not answers(asked, asked)
    assert not answers(response_to(asked, "evil.example.com"), asked)
    assert not answers(response_to(asked, kind=QTYPE.AAAA), asked)
    assert not answers(with_flags(good, 0x8180 | 5 << 11), asked)
    assert not answers(good[:20], asked)
    assert not answers(good[:4] + b"\0\0" + good[6:], asked)  # a success that repeats no question
