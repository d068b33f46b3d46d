"""The CA's own files: made once and kept, or given and checked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from controller.authority.errors import AuthorityError
from controller.authority.issuer import Issuer, load_or_create
from tests.identity import certificates_for_tests as made

NOW = datetime.now(UTC)


def load(directory: Path) -> Issuer:
    return load_or_create(directory, "cluster.local", NOW)


def test_a_root_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load(tmp_path / "state" / "ca")
    again = load(tmp_path / "state" / "ca")
    assert first.roots == again.roots == (tmp_path / "state" / "ca" / "root-cert.pem").read_text()
    assert first.intermediates == ()
    key = tmp_path / "state" / "ca" / "root-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"ca"}, "nothing half made is left"


def test_the_root_is_a_ca_for_years(tmp_path: Path) -> None:
    root = load(tmp_path / "ca").certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert root.not_valid_after_utc - NOW > timedelta(days=3600)
    assert root.not_valid_before_utc < NOW
    root.verify_directly_issued_by(root)


def test_two_controllers_that_start_at_once_make_one_root(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        roots = {issuer.roots for issuer in threads.map(load, [tmp_path / "ca"] * 8)}
    assert len(roots) == 1


def write_given(directory: Path, root: made.Issuer, signer: made.Issuer, *chain: made.Issuer) -> None:
    directory.mkdir()
    (directory / "root-cert.pem").write_bytes(root.pem)
    (directory / "ca-cert.pem").write_bytes(signer.pem)
    (directory / "ca-key.pem").write_bytes(made.pem_of_key(signer.key))
    if chain:
        (directory / "cert-chain.pem").write_bytes(b"".join(each.pem for each in chain))


def test_a_given_intermediate_is_used(tmp_path: Path) -> None:
    root = made.Issuer.root()
    signer = root.intermediate()
    write_given(tmp_path / "ca", root, signer)
    issuer = load(tmp_path / "ca")
    assert issuer.certificate == signer.certificate
    assert issuer.intermediates == (signer.pem.decode(),)
    assert issuer.roots == root.pem.decode()


def test_given_intermediates_are_put_in_order(tmp_path: Path) -> None:
    root = made.Issuer.root()
    upper = root.intermediate("upper")
    middle = upper.intermediate("middle")
    lower = middle.intermediate("lower")
    write_given(tmp_path / "ca", root, lower, upper, lower, middle, root)
    assert load(tmp_path / "ca").intermediates == tuple(each.pem.decode() for each in (lower, middle, upper))


def test_a_given_root_may_sign_itself(tmp_path: Path) -> None:
    root = made.Issuer.root()
    write_given(tmp_path / "ca", root, root)
    assert load(tmp_path / "ca").intermediates == ()


ROOT, OTHER = made.Issuer.root(), made.Issuer.root("another")


def leaf_as_signer(directory: Path) -> None:
    certificate, key = ROOT.leaf("spiffe://cluster.local/ns/a/sa/b")
    (directory / "ca-cert.pem").write_bytes(certificate)
    (directory / "ca-key.pem").write_bytes(key)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "ca-key.pem").unlink(), r"cannot read .*ca-key\.pem: No such file"),
        (lambda d: (d / "root-cert.pem").unlink(), r"cannot read .*root-cert\.pem"),
        (lambda d: (d / "ca-key.pem").write_bytes(made.pem_of_key(OTHER.key)), r"ca-key\.pem does not belong to"),
        (lambda d: (d / "ca-key.pem").write_text("junk"), r"ca-key\.pem is not a PEM private key"),
        (lambda d: (d / "ca-cert.pem").write_text("junk"), r"ca-cert\.pem holds no usable PEM certificate"),
        (lambda d: (d / "root-cert.pem").write_bytes(OTHER.pem), r"ca-cert\.pem does not lead to .*root-cert\.pem"),
        (leaf_as_signer, r"ca-cert\.pem may not sign others"),
    ],
)
def test_what_is_wrong_with_given_files_is_told(tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    write_given(tmp_path / "ca", ROOT, ROOT.intermediate())
    spoil(tmp_path / "ca")
    with pytest.raises(AuthorityError, match=words):
        load(tmp_path / "ca")


def test_an_expired_ca_is_told(tmp_path: Path) -> None:
    write_given(tmp_path / "ca", ROOT, ROOT.intermediate())
    with pytest.raises(AuthorityError, match=r"ca-cert\.pem is valid from .* to "):
        load_or_create(tmp_path / "ca", "cluster.local", NOW + timedelta(days=1))


def test_a_root_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    load(tmp_path / "ca")
    (tmp_path / "ca" / "root-key.pem").unlink()
    with pytest.raises(AuthorityError, match=r"cannot read .*root-key\.pem"):
        load(tmp_path / "ca")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuthorityError, match="cannot write"):
        load(tmp_path / "file" / "ca")
