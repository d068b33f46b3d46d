"""Header blocks against the hpack library, which serves here as another implementation."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.hbone.frames import ConnectionFailed, ErrorCode
from mesh.hbone.header_decoder import HeaderDecoder, HeadersTooLarge
from mesh.hbone.headers import encode

names = st.one_of(
    st.sampled_from([":authority", ":method", ":status", "baggage", "via", "cookie", "set-cookie", "www-authenticate"]),
    st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=200),
)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=400)
fields = st.lists(st.tuples(names, values | st.just("200")), max_size=8)


@given(fields)
def test_others_decode_what_we_encode(given: list[tuple[str, str]]) -> None:
    assert [tuple(field) for field in hpack.Decoder(1 << 20).decode(encode(given))] == given


@given(fields)
def test_what_we_encode_is_never_put_in_a_table(given: list[tuple[str, str]]) -> None:
    decoder = hpack.Decoder(1 << 20)
    list(decoder.decode(encode(given)))
    assert not decoder.header_table.dynamic_entries


@given(st.lists(st.tuples(fields, st.booleans()), max_size=6))
def test_we_decode_what_others_encode(blocks: list[tuple[list[tuple[str, str]], bool]]) -> None:
    """One encoder, one decoder, blocks that refer to each other and come again, with plain ones in between."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(1 << 16)
    for given_fields, foreign in [*blocks, *blocks]:
        block = encoder.encode(given_fields, huffman=True) if foreign else encode(given_fields)
        assert [tuple(field) for field in decoder.decode(block)] == given_fields


def test_a_block_is_decoded_anew_when_the_table_has_changed() -> None:
    decoder = HeaderDecoder(1 << 16)
    assert decoder.decode(b"\x40\x01a\x01b") == [("a", "b")]
    assert decoder.decode(b"\xbe") == [("a", "b")]
    assert decoder.decode(b"\x40\x01a\x01c") == [("a", "c")]
    assert decoder.decode(b"\xbe") == [("a", "c")]


@pytest.mark.parametrize("huffman", [True, False])
def test_the_table_counts_octets(huffman: bool) -> None:
    """Not characters: both fields would fit into its 4096 then."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(1 << 16)
    decoder.decode(encoder.encode([("a", "\u00e9" * 1500)], huffman=huffman))
    assert decoder.decode(b"\xbe") == [("a", "\u00e9" * 1500)]
    decoder.decode(encoder.encode([("b", "x" * 1100)], huffman=huffman))
    with pytest.raises(ConnectionFailed, match="beyond the table"):
        decoder.decode(b"\xbf")


def test_tunnels_open_with_equal_bytes() -> None:
    connect = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")]
    assert encode(connect) == encode(connect)
    assert encode([(":status", "200")]) == b"\x88"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\0", " a", "a ", "a\n", "\x7f"])
def test_nothing_is_smuggled_into_a_header(value: str) -> None:
    with pytest.raises(ValueError, match="forwarded"):
        encode([("forwarded", value)])


def test_a_list_that_is_too_large_leaves_the_tables_usable() -> None:
    decoder = HeaderDecoder(1000)
    block = hpack.Encoder().encode([("a", "b" * 600), ("c", "d" * 600)], huffman=False)
    with pytest.raises(HeadersTooLarge):
        decoder.decode(block)
    assert decoder.decode(b"\xbe") == [("c", "d" * 600)]


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_an_error(block: bytes) -> None:
    """And all of it agrees with the library."""
    assert ours(block) == librarys(block)


def ours(block: bytes) -> object:
    try:
        return [tuple(field) for field in HeaderDecoder(1 << 16).decode(block)]
    except ConnectionFailed as failure:
        return failure.code


def librarys(block: bytes) -> object:
    try:
        fields = hpack.Decoder().decode(block, raw=True)
    except (hpack.HPACKError, IndexError, ValueError):
        return ErrorCode.COMPRESSION_ERROR
    return [(str(name, "utf-8", "replace"), str(value, "utf-8", "replace")) for name, value in fields]
