"""A key pair and the request for its certificate, in the shape that Istio's CA gets from ztunnels (src/tls/csr.rs)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.model.identity import SpiffeId


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Both PEM: a fresh private key (PKCS #8) and the CSR that it signed."""

    private_key: bytes
    csr: bytes


def request_certificate(identity: SpiffeId) -> CertificateRequest:
    """A new P-256 key; the CSR has an empty subject and one critical URI SAN."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    return CertificateRequest(
        private_key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        csr=csr.public_bytes(serialization.Encoding.PEM),
    )
