"""The certificates that the authority makes, and the requests that it refuses."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from controller.authority.authority import Authority
from controller.authority.errors import AuthorityError, RequestRefused
from controller.authority.issuer import load_or_create
from controller.authority.serving import ServingCertificates
from mesh.identity.certificates import key_fits, parse_leaf, spiffe_ids
from mesh.identity.csr import request_certificate
from mesh.identity.tls import TlsIdentity
from mesh.model.identity import SpiffeId
from tests.identity import certificates_for_tests as made
from tests.identity.test_tls import sessions, shake

WEB = SpiffeId("cluster.local", "shop", "web")
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(hours=24)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(load_or_create(tmp_path / "ca", "cluster.local", NOW), "cluster.local")


def csr(key: object = None, names: list[x509.GeneralName] | None = None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names is None:
        names = [x509.UniformResourceIdentifier(str(WEB))]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


def leaf_of(chain: list[str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain[0].encode())


def test_a_leaf_says_who_it_is_and_what_it_is_for(authority: Authority) -> None:
    request = request_certificate(WEB)
    chain = authority.issue(request.csr.decode(), WEB, None, NOW)
    leaf = leaf_of(chain)
    assert chain[-1] == authority.roots
    assert spiffe_ids(leaf) == (WEB,)
    assert leaf.subject == x509.Name([])
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    root = authority.issuer.certificate
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == key_id
    assert key_fits(chain[0].encode(), request.private_key)
    assert NOW - timedelta(minutes=5) < leaf.not_valid_before_utc < NOW
    assert leaf.not_valid_after_utc == NOW + DAY


def test_openssl_and_a_strict_verifier_agree(authority: Authority, tmp_path: Path) -> None:
    leaf = leaf_of(authority.issue(csr(), WEB, None, NOW))
    store = Store([authority.issuer.certificate])
    PolicyBuilder().store(store).time(NOW).build_client_verifier().verify(leaf, [])
    (tmp_path / "root.pem").write_text(authority.roots)
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem", "leaf.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_two_workloads_shake_hands(authority: Authority) -> None:
    def identity(who: SpiffeId) -> TlsIdentity:
        request = request_certificate(who)
        leaf, *between, roots = authority.issue(request.csr.decode(), who, None, NOW)
        return TlsIdentity("".join([leaf, *between]).encode(), request.private_key, roots.encode())

    client, server = sessions(identity(WEB), identity(SpiffeId("cluster.local", "shop", "cart")))
    shake(client, server)
    assert server.peer_identity() == WEB


def test_through_a_given_intermediate_too(tmp_path: Path) -> None:
    root = made.Issuer.root()
    signer = root.intermediate()
    (tmp_path / "root-cert.pem").write_bytes(root.pem)
    (tmp_path / "ca-cert.pem").write_bytes(signer.pem)
    (tmp_path / "ca-key.pem").write_bytes(made.pem_of_key(signer.key))
    authority = Authority(load_or_create(tmp_path, "cluster.local", NOW), "cluster.local")
    request = request_certificate(WEB)
    leaf, between, roots = authority.issue(request.csr.decode(), WEB, None, NOW)
    mine = TlsIdentity((leaf + between).encode(), request.private_key, roots.encode())
    shake(*sessions(mine, mine))
    assert parse_leaf(leaf).not_after == signer.certificate.not_valid_after_utc.timestamp(), "never outlives its signer"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [(None, DAY), (timedelta(minutes=10), timedelta(minutes=10)), (timedelta(days=900), DAY)],
)
def test_lifetimes_are_capped(authority: Authority, asked: timedelta | None, granted: timedelta) -> None:
    assert leaf_of(authority.issue(csr(), WEB, asked, NOW)).not_valid_after_utc == NOW + granted


def test_serial_numbers_differ(authority: Authority) -> None:
    request = csr()
    serials = {leaf_of(authority.issue(request, WEB, None, NOW)).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert min(serials).bit_length() > 100


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_other_strong_keys_are_taken(authority: Authority, key: object) -> None:
    assert authority.issue(csr(key), WEB, None, NOW)


OTHER = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/bank/sa/vault")
MINE = x509.UniformResourceIdentifier(str(WEB))


@pytest.mark.parametrize(
    ("request_pem", "words"),
    [
        ("", "not a PEM certificate request"),
        ("junk", "not a PEM certificate request"),
        ("A" * 20_000, "longer than"),
        (csr(names=[]), "must name spiffe://cluster.local/ns/shop/sa/web and nothing else"),
        (csr(names=[OTHER]), "nothing else"),
        (csr(names=[MINE, OTHER]), "nothing else"),
        (csr(names=[MINE, x509.DNSName("bank.example")]), "nothing else"),
        (csr(ec.generate_private_key(ec.SECP256K1())), "neither ECDSA"),
        (csr(rsa.generate_private_key(65537, 1024)), "neither ECDSA"),
        (csr(ed25519.Ed25519PrivateKey.generate()), "neither ECDSA"),
    ],
)
def test_bad_requests_are_refused(authority: Authority, request_pem: str, words: str) -> None:
    with pytest.raises(RequestRefused, match=words):
        authority.issue(request_pem, WEB, None, NOW)


def test_a_request_with_a_key_that_is_not_its_owners_is_refused(authority: Authority) -> None:
    der = bytearray(x509.load_pem_x509_csr(csr().encode()).public_bytes(serialization.Encoding.DER))
    der[-3] ^= 1
    try:
        pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    except ValueError:
        pytest.skip("the spoilt signature is not even DER")
    with pytest.raises(RequestRefused, match="not signed by its own key"):
        authority.issue(pem, WEB, None, NOW)


def test_another_trust_domain_is_refused(authority: Authority) -> None:
    with pytest.raises(RequestRefused, match=r"not of trust domain cluster\.local"):
        authority.issue(csr(), SpiffeId("other.example", "shop", "web"), None, NOW)


def test_an_expired_ca_signs_nothing(authority: Authority) -> None:
    with pytest.raises(AuthorityError, match="expired"):
        authority.issue(csr(), WEB, None, NOW + timedelta(days=4000))


def test_the_serving_certificate_has_names_and_addresses_and_is_renewed(authority: Authority) -> None:
    serving = ServingCertificates(authority, ["ambit-controller", "10.1.0.1", "fd00::1", "10.1.0.1"])
    first = serving.at(NOW)
    names = leaf_of([first.chain.decode()]).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.DNSName("ambit-controller"),
        x509.IPAddress(ip_address("10.1.0.1")),
        x509.IPAddress(ip_address("fd00::1")),
    ]
    assert key_fits(first.chain, first.private_key)
    assert serving.at(NOW + timedelta(hours=11)) is first
    second = serving.at(NOW + timedelta(hours=13))
    assert parse_leaf(second.chain).not_after > parse_leaf(first.chain).not_after
