"""Makes certificates: for workloads after a CSR, and for the controller itself. Time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller.authority.errors import AuthorityError, RequestRefused
from controller.authority.issuer import CLOCK_SKEW, Issuer, to_text
from mesh.model.identity import SpiffeId

LIFETIME = timedelta(hours=24)  # of a leaf, unless a shorter one is asked for
_MAX_CSR_BYTES = 16 << 10
_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1")

LeafKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True)
class Authority:
    """Signs for one trust domain. `longest` caps every leaf's lifetime."""

    issuer: Issuer
    trust_domain: str
    longest: timedelta = LIFETIME

    @property
    def roots(self) -> str:
        """PEM."""
        return self.issuer.roots

    def issue(self, csr: str, identity: SpiffeId, lifetime: timedelta | None, now: datetime) -> list[str]:
        """PEM texts: the leaf, intermediates, the roots (IstioCertificateResponse.cert_chain). Raises RequestRefused.

        Of the CSR only the key is taken, but its names must say what is granted: anything else is a mix-up or an
        attempt.
        """
        if identity.trust_domain != self.trust_domain:
            raise RequestRefused(f"{identity} is not of trust domain {self.trust_domain}")
        key = _requested_key(csr, identity)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        leaf = self._sign(key, names, usages, lifetime or self.longest, now)
        return [to_text(leaf), *self.issuer.intermediates, self.issuer.roots]

    def issue_serving(
        self, key: ec.EllipticCurvePublicKey, names: Sequence[x509.GeneralName], now: datetime
    ) -> tuple[x509.Certificate, str]:
        """A server's certificate for DNS names and IP addresses, and the PEM chain to present."""
        leaf = self._sign(
            key, x509.SubjectAlternativeName(names), (ExtendedKeyUsageOID.SERVER_AUTH,), self.longest, now
        )
        return leaf, to_text(leaf) + "".join(self.issuer.intermediates)

    def _sign(
        self,
        key: LeafKey,
        names: x509.SubjectAlternativeName,
        usages: Sequence[x509.ObjectIdentifier],
        lifetime: timedelta,
        now: datetime,
    ) -> x509.Certificate:
        issuer = self.issuer.certificate
        ends = min(now + min(lifetime, self.longest), issuer.not_valid_after_utc)
        if ends <= now:
            raise AuthorityError(f"the CA certificate expired on {issuer.not_valid_after_utc:%Y-%m-%d %H:%M}")
        return (
            x509.CertificateBuilder(
                issuer.subject, x509.Name([]), key, x509.random_serial_number(), now - CLOCK_SKEW, ends
            )
            .add_extension(names, critical=True)  # the subject is empty (RFC 5280 section 4.2.1.6)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(key), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_authority_key(issuer), critical=False)
            .sign(self.issuer.key, hashes.SHA256())
        )


def _requested_key(text: str, identity: SpiffeId) -> LeafKey:
    if len(text) > _MAX_CSR_BYTES:
        raise RequestRefused(f"the CSR is longer than {_MAX_CSR_BYTES} bytes")
    try:
        csr = x509.load_pem_x509_csr(text.encode())
        valid = csr.is_signature_valid
        key = csr.public_key()
        names = _names(csr)
    except (ValueError, x509.DuplicateExtension) as error:
        raise RequestRefused("the CSR is not a PEM certificate request") from error
    except Exception as error:  # UnsupportedAlgorithm and the like: whatever is inside comes from outside
        raise RequestRefused("the CSR uses what this authority does not support") from error
    if not valid:
        raise RequestRefused("the CSR is not signed by its own key")
    if names != [x509.UniformResourceIdentifier(str(identity))]:
        raise RequestRefused(f"the CSR must name {identity} and nothing else")
    return _checked_key(key)


def _names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _checked_key(key: object) -> LeafKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return key
    raise RequestRefused(f"the key of the CSR is neither ECDSA P-256 or P-384 nor RSA of {_MIN_RSA_BITS} bits")


def _key_usage(key: LeafKey) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=isinstance(key, rsa.RSAPublicKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
