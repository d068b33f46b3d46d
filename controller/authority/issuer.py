"""The CA certificate and key that sign: a root of our own, made once and kept, or files that somebody gave us.

Given files have the names of Istio's `cacerts`: ca-cert.pem, ca-key.pem, root-cert.pem and, with intermediates
between, cert-chain.pem.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from controller.authority.errors import AuthorityError
from controller.authority.keys import SigningKey, new_key, parse_key, to_pem
from controller.authority.place import Directory, Place

ROOT_CERTIFICATE, ROOT_KEY = "root-cert.pem", "root-key.pem"
GIVEN_CERTIFICATE, GIVEN_KEY, GIVEN_CHAIN = "ca-cert.pem", "ca-key.pem", "cert-chain.pem"
ROOT_LIFETIME = timedelta(days=3650)  # as Istio's self-signed root
CLOCK_SKEW = timedelta(minutes=2)  # certificates begin this much earlier: nodes' clocks differ


@dataclass(frozen=True)
class Issuer:
    """What signs leaves. `intermediates` are PEM and go with a leaf; `roots` is the PEM bundle that peers trust."""

    certificate: x509.Certificate
    key: SigningKey
    intermediates: tuple[str, ...]
    roots: str


def load_or_create(directory: Path, trust_domain: str, now: datetime) -> Issuer:
    """`obtain` from a directory."""
    return obtain(Directory(directory), trust_domain, now)


def obtain(place: Place, trust_domain: str, now: datetime) -> Issuer:
    """The CA in `place`: a given one, else our own root, made if there is none yet. Raises AuthorityError for what
    would only show up later as peers that trust nobody."""
    if place.has(GIVEN_CERTIFICATE) or place.has(GIVEN_KEY):
        return _load(place, GIVEN_CERTIFICATE, GIVEN_KEY, now)
    if not place.has(ROOT_CERTIFICATE) and not place.has(ROOT_KEY):
        key, certificate = _new_root(trust_domain, now)
        place.create(private={ROOT_KEY: key}, public={ROOT_CERTIFICATE: certificate})
    return _load(place, ROOT_CERTIFICATE, ROOT_KEY, now)


def to_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _load(place: Place, certificate_name: str, key_name: str, now: datetime) -> Issuer:
    where = place.where
    certificate = _certificates(place, certificate_name)[0]
    key = parse_key(place.read(key_name), where(key_name))
    _check_authority(certificate, where(certificate_name), now)
    if certificate.public_key() != key.public_key():
        raise AuthorityError(
            f"the key in {where(key_name)} does not belong to the certificate in {where(certificate_name)}"
        )
    roots = _certificates(place, ROOT_CERTIFICATE)
    above = _certificates(place, GIVEN_CHAIN) if key_name == GIVEN_KEY and place.has(GIVEN_CHAIN) else []
    for each in above:
        _check_authority(each, where(GIVEN_CHAIN), now)
    path = _path_to_root([certificate, *above], roots)
    if path is None:
        raise AuthorityError(f"{where(certificate_name)} does not lead to a certificate in {where(ROOT_CERTIFICATE)}")
    for root in roots:
        _check_authority(root, where(ROOT_CERTIFICATE), now)
    return Issuer(certificate, key, tuple(map(to_text, path)), "".join(map(to_text, roots)))


def _path_to_root(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> list[x509.Certificate] | None:
    """The certificates from the signing one up to the one that a root has signed; empty when it is a root itself."""
    current, rest, path = chain[0], list(chain[1:]), []
    while current not in roots:
        path.append(current)
        if any(_signed_by(current, root) for root in roots):
            return path
        above = next((each for each in rest if _signed_by(current, each)), None)
        if above is None:
            return None
        rest.remove(above)
        current = above
    return path


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificates(place: Place, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(place.read(name))
    except ValueError as error:
        raise AuthorityError(f"{place.where(name)} holds no usable PEM certificate: {error}") from error


def _check_authority(certificate: x509.Certificate, where: str, now: datetime) -> None:
    extensions = certificate.extensions
    try:
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True  # no restriction (RFC 5280 section 4.2.1.3)
    if not is_authority or not may_sign:
        raise AuthorityError(f"the certificate in {where} may not sign others: it is not a CA's")
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not starts <= now < ends:
        raise AuthorityError(
            f"the certificate in {where} is valid from {starts:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M}"
        )


def _new_root(trust_domain: str, now: datetime) -> tuple[bytes, bytes]:
    """Key and certificate, PEM."""
    key = new_key()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
            x509.NameAttribute(NameOID.COMMON_NAME, "Ambit root CA"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - CLOCK_SKEW, now + ROOT_LIFETIME
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return to_pem(key), certificate.public_bytes(serialization.Encoding.PEM)
