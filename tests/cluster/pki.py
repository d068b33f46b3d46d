"""The cluster's certificate authority, its certificates and kubeconfigs."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)  # no cluster lives that long
PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


class Authority:
    """Signs for clients and servers of the cluster; its files are `ca.crt` and `ca.key` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = directory / "ca.crt", directory / "ca.key"
        if not self.certificate.exists():
            directory.mkdir(parents=True, exist_ok=True)
            self._create()

    def _create(self) -> None:
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("ambit-cluster-ca", ())
        builder = _builder(name, name, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        _private(self.key, _pem(key))
        self.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, user: str, groups: Sequence[str], hosts: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """A certificate and its key in PEM; Kubernetes reads the user from CN and the groups from O."""
        authority = load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(authority, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes()).subject
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(user, groups), issuer, key.public_key()).add_extension(PURPOSES, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, hosts))), False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key)

    def write(self, directory: Path, file: str, user: str, groups: Sequence[str], hosts: Sequence[str] = ()) -> None:
        """Issue into `directory`/`file`.crt and .key."""
        certificate, key = self.issue(user, groups, hosts)
        (directory / f"{file}.crt").write_bytes(certificate)
        _private(directory / f"{file}.key", key)

    def kubeconfig(self, path: Path, server: str, user: str, groups: Sequence[str]) -> None:
        certificate, key = self.issue(user, groups)
        cluster = {"server": server, "certificate-authority-data": _base64(self.certificate.read_bytes())}
        credentials = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        values = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "ambit-cluster",
            "clusters": [{"name": "ambit-cluster", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "ambit-cluster", "context": {"cluster": "ambit-cluster", "user": user}}],
        }
        _private(path, json.dumps(values, indent=2).encode())


def signing_key(directory: Path, name: str) -> None:
    """Write a new key as `name`.key, and its public half as `name`.pub."""
    key = ec.generate_private_key(ec.SECP256R1())
    _private(directory / f"{name}.key", _pem(key))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{name}.pub").write_bytes(public)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + LIFETIME)


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
