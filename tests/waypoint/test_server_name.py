"""The server name of a ClientHello: OpenSSL's hellos are read, what it would not take is not."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import client_hello
from waypoint.serve.server_name import MOST_PEEKED, Unreadable, server_name


def in_records(hello: bytes, *sizes: int) -> bytes:
    """The same hello over several records."""
    body, records = hello[5:], b""
    for size in (*sizes, len(body)):
        part, body = body[:size], body[size:]
        records += hello[:3] + len(part).to_bytes(2, "big") + part if part else b""
    return records


def with_name(hello: bytes, extension: bytes) -> bytes:
    """The extension's content exchanged, and all lengths around it made right."""
    name = hello.index(b"\x00\x00", hello.index(b"a.example") - 12)
    content = hello[name + 4 : name + 4 + int.from_bytes(hello[name + 2 : name + 4], "big")]
    grown = len(extension) - len(content)
    changed = hello.replace(
        hello[name : name + 4] + content, b"\x00\x00" + len(extension).to_bytes(2, "big") + extension, 1
    )
    at = 5 + 4 + 2 + 32
    at += 1 + changed[at]
    at += 2 + int.from_bytes(changed[at : at + 2], "big")
    at += 1 + changed[at]
    return _grown(_grown(_grown(changed, 3, 2, grown), 6, 3, grown), at, 2, grown)


def _grown(data: bytes, at: int, size: int, by: int) -> bytes:
    return data[:at] + (int.from_bytes(data[at : at + size], "big") + by).to_bytes(size, "big") + data[at + size :]


def entry(name: bytes, kind: int = 0) -> bytes:
    return bytes((kind,)) + len(name).to_bytes(2, "big") + name


def names(*entries: bytes) -> bytes:
    listed = b"".join(entries)
    return len(listed).to_bytes(2, "big") + listed


def test_what_openssl_says() -> None:
    assert server_name(client_hello("a.example")) == "a.example"
    assert server_name(client_hello("Shop.EXAMPLE.")) == "shop.example"
    assert server_name(client_hello("")) == ""


def test_more_must_come_until_it_is_complete() -> None:
    hello = client_hello("a.example")
    assert {server_name(hello[:size]) for size in range(len(hello))} == {None}
    assert server_name(hello + b"whatever follows") == "a.example"


@pytest.mark.parametrize("sizes", [(1,), (3, 1), (60, 1, 1), (4,)])
def test_it_may_be_spread_over_records(sizes: tuple[int, ...]) -> None:
    assert server_name(in_records(client_hello("a.example"), *sizes)) == "a.example"


def test_the_test_changes_names_as_it_should() -> None:
    assert server_name(with_name(client_hello("a.example"), names(entry(b"b.example")))) == "b.example"


@pytest.mark.parametrize(
    "extension",
    [
        names(entry(b"b.example"), entry(b"a.example")),
        names(entry(b"")),
        names(),
        b"",
        names(entry(b"b.example"))[:-1],
        names(entry(b"b.example")) + b"x",
        names(entry(b"b.example", kind=1)),
        names(entry(b"b.example\0.evil")),
        names(entry(b"b example")),
        names(entry("b.ex\xe4mple".encode())),
        names(entry(b"b.example..")),
        names(entry(b".example")),
    ],
)
def test_what_another_server_may_read_otherwise_is_unreadable(extension: bytes) -> None:
    assert isinstance(server_name(with_name(client_hello("a.example"), extension)), Unreadable)


def test_a_hello_without_end_is_unreadable() -> None:
    endless = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(0x3FFC)
    assert server_name(endless) is None
    assert isinstance(server_name(endless + b"\x16\x03\x01\x40\x00" + bytes(MOST_PEEKED)), Unreadable)


@pytest.mark.parametrize("start", [b"\x17", b"\x16\x04"])
def test_another_record_is_unreadable(start: bytes) -> None:
    hello = client_hello("a.example")
    assert isinstance(server_name(start + hello[len(start) :]), Unreadable)
