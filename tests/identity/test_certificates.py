"""What a CSR asks for, and what a chain is found to say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.identity.certificates import key_fits, parse_chain, parse_leaf, renewal_time
from mesh.identity.csr import request_certificate
from mesh.model.identity import SpiffeId
from tests.identity.certificates_for_tests import Issuer

WEB = SpiffeId("cluster.local", "shop", "web")


def test_a_request_has_istios_shape() -> None:
    request = request_certificate(WEB)
    csr = x509.load_pem_x509_csr(request.csr)
    assert csr.is_signature_valid
    assert list(csr.subject) == []
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    (extension,) = csr.extensions
    assert extension.critical
    assert extension.value == x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(WEB))])
    assert request.private_key.startswith(b"-----BEGIN PRIVATE KEY-----"), "PKCS #8"


def test_every_request_has_its_own_key() -> None:
    assert request_certificate(WEB).private_key != request_certificate(WEB).private_key


def test_a_chain_is_read_leaf_first() -> None:
    root = Issuer.root("the root")
    leaf_pem, key = root.leaf("https://x.example/", str(WEB), starts=timedelta(0), ends=timedelta(hours=24))
    leaf, top = parse_chain(leaf_pem + root.pem)
    assert leaf.identity == WEB
    assert top.identity is None
    assert top.subject == "CN=the root"
    assert leaf.not_after - leaf.not_before == 24 * 3600
    assert leaf.renewal_time == leaf.not_before + 12 * 3600
    assert leaf.valid_at(leaf.not_before)
    assert not leaf.valid_at(leaf.not_after)
    assert key_fits(leaf_pem, key)
    assert not key_fits(root.pem, key)


def test_half_life() -> None:
    assert renewal_time(1000.0, 2000.0) == 1500.0


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_leaf(text)
