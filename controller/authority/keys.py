"""Private keys: ECDSA P-256, PEM, PKCS #8."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controller.authority import files
from controller.authority.errors import AuthorityError

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def to_pem(key: SigningKey) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form)


def load_key(path: Path) -> SigningKey:
    """An ECDSA or RSA key. Raises AuthorityError."""
    return parse_key(files.read(path), str(path))


def parse_key(pem: bytes, where: str) -> SigningKey:
    """Of text that comes from `where`. Raises AuthorityError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it wants a password
        raise AuthorityError(f"{where} is not a PEM private key without password: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise AuthorityError(f"the key in {where} is neither ECDSA nor RSA")
    return key
