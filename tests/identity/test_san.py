"""The names in a certificate: as `cryptography` reads them, and nothing but a refusal for what is no certificate."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.identity.san import Malformed, uri_names
from tests.identity.certificates_for_tests import Issuer

ROOT = Issuer.root()
WEB = "spiffe://cluster.local/ns/shop/sa/web"
LEAF = x509.load_pem_x509_certificate(ROOT.leaf(WEB)[0]).public_bytes(Encoding.DER)
URIS = st.lists(st.from_regex(r"[a-z]{1,10}://[!-~]{0,200}", fullmatch=True), max_size=5, unique=True)


@settings(max_examples=50, deadline=None)
@given(URIS)
def test_uri_names_are_read_as_cryptography_reads_them(uris: list[str]) -> None:
    certificate = x509.load_pem_x509_certificate(ROOT.leaf(*uris)[0])
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        expected = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        expected = []
    assert list(uri_names(certificate.public_bytes(Encoding.DER))) == expected


def test_a_certificate_without_names_has_none() -> None:
    certificate = x509.load_pem_x509_certificate(ROOT.pem)
    assert uri_names(certificate.public_bytes(Encoding.DER)) == ()


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(data: bytes) -> None:
    try:
        uri_names(data)
    except Malformed:
        pass


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(LEAF) - 1), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_read(at: int, value: int) -> None:
    broken = LEAF[:at] + bytes((value,)) + LEAF[at + 1 :]
    try:
        uri_names(broken)
    except Malformed:
        pass


@pytest.mark.parametrize("size", range(0, len(LEAF), 7))
def test_a_cut_certificate_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        uri_names(LEAF[:size])
