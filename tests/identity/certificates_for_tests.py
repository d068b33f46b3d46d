"""A certificate authority for tests, able to make the bad certificates that the real one refuses to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.identity.tls import TlsIdentity

BOTH_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass
class Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str = "test root") -> Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return cls(_sign(key, key, subject, subject, authority=True), key)

    def intermediate(self, name: str = "test intermediate") -> Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return Issuer(_sign(key, self.key, subject, self.certificate.subject, authority=True), key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(
        self,
        *uris: str,
        starts: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(hours=1),
        usages: Sequence[x509.ObjectIdentifier] = BOTH_USAGES,
    ) -> tuple[bytes, bytes]:
        """Certificate and key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(
            key, self.key, x509.Name([]), self.certificate.subject, uris=uris, starts=starts, ends=ends, usages=usages
        )
        return certificate.public_bytes(serialization.Encoding.PEM), pem_of_key(key)

    def identity(self, *uris: str, roots: bytes | None = None, **options: object) -> TlsIdentity:
        chain, key = self.leaf(*uris, **options)  # type: ignore[arg-type]
        return TlsIdentity(chain, key, roots or self.pem)


def _sign(
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    *,
    uris: Sequence[str] = (),
    authority: bool = False,
    starts: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(hours=1),
    usages: Sequence[x509.ObjectIdentifier] = (),
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now + starts, now + ends
    ).add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
