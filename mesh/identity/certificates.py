"""What a certificate chain says: whose it is, how long it is valid, when to renew it.

Times are seconds since the epoch. Nothing here verifies signatures: TLS does.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mesh.model.identity import SpiffeId


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts of one certificate that people and programs ask for."""

    identities: tuple[SpiffeId, ...]  # its URI SANs of Istio's form
    subject: str  # RFC 4514
    serial: str  # hexadecimal
    not_before: float
    not_after: float

    @property
    def identity(self) -> SpiffeId | None:
        return self.identities[0] if self.identities else None

    @property
    def renewal_time(self) -> float:
        return renewal_time(self.not_before, self.not_after)

    def valid_at(self, now: float) -> bool:
        return self.not_before <= now < self.not_after


def renewal_time(not_before: float, not_after: float) -> float:
    """Half life: late enough to be cheap, early enough that an absent CA is no emergency."""
    return not_before + (not_after - not_before) / 2


def parse_chain(pem: bytes | str) -> tuple[Certificate, ...]:
    """All certificates of a PEM text in their order, so the leaf first. Raises ValueError when there is none."""
    return tuple(_facts(certificate) for certificate in load_chain(pem))


def parse_leaf(pem: bytes | str) -> Certificate:
    """The first certificate of a PEM text. Raises ValueError."""
    return parse_chain(pem)[0]


def load_chain(pem: bytes | str) -> list[x509.Certificate]:
    """Raises ValueError when `pem` holds no certificate or a malformed one."""
    data = pem.encode() if isinstance(pem, str) else pem
    return x509.load_pem_x509_certificates(data)


def key_fits(leaf_pem: bytes, private_key_pem: bytes) -> bool:
    """Whether a private key is the one of the first certificate of a PEM text. Raises ValueError."""
    public = load_chain(leaf_pem)[0].public_key()
    private = serialization.load_pem_private_key(private_key_pem, password=None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.public_key().public_bytes(*form) == public.public_bytes(*form)


def spiffe_ids(certificate: x509.Certificate) -> tuple[SpiffeId, ...]:
    """The URI SANs of Istio's form, in their order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        identity for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if (identity := _parsed(uri))
    )


def _parsed(uri: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(uri)
    except ValueError:
        return None


def _facts(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        identities=spiffe_ids(certificate),
        subject=certificate.subject.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )
