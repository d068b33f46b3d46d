"""Port 15008 as a stranger meets it: whom it lets in, and what it proves about itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scenarios.conftest import Mesh

pytestmark = pytest.mark.root


def _root(mesh: Mesh) -> Path:
    return mesh.instance.controller / "ca" / "root-cert.pem"


def _openssl(mesh: Mesh, *options: str) -> str:
    """`openssl s_client` from the underlay to the pod far; its whole output."""
    command = ["openssl", "s_client", "-connect", f"{mesh.address('meshed/far')}:15008", "-alpn", "h2", *options]
    done = mesh.within("node2", lambda: subprocess.run(command, input="", capture_output=True, text=True, timeout=20))
    return done.stdout + done.stderr


def test_the_peer_verifies_with_openssl(mesh: Mesh, tmp_path: Path) -> None:
    shown = _openssl(mesh, "-showcerts", "-CAfile", str(_root(mesh)))
    assert "TLSv1.3" in shown
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(shown[shown.index("-----BEGIN") : shown.index("-----END CERTIFICATE-----") + 26])
    verify = ["openssl", "verify", "-CAfile", str(_root(mesh)), str(leaf)]
    assert subprocess.run(verify, capture_output=True, text=True).stdout.strip().endswith("OK")
    names = subprocess.run(
        ["openssl", "x509", "-in", str(leaf), "-noout", "-ext", "subjectAltName"], capture_output=True
    )
    assert b"URI:spiffe://cluster.local/ns/meshed/sa/bob" in names.stdout


def test_nothing_below_tls_13(mesh: Mesh) -> None:
    assert "Cipher is (NONE)" in _openssl(mesh, "-tls1_2")


def test_identities_of_both_sides_are_shown(mesh: Mesh) -> None:
    from tests.scenarios.programs import server

    held = mesh.start("meshed/client", "hold", "far.meshed", server.ECHO)
    assert held.ask("here") == "here"
    prefix = "spiffe://cluster.local/ns/meshed/sa/"
    shown = {(each["direction"], each["sourceIdentity"], each["destinationIdentity"]) for each in mesh.connections()}
    assert {("outbound", prefix + "alice", prefix + "bob"), ("inbound", prefix + "alice", prefix + "bob")} <= shown


def test_certificates_are_listed(mesh: Mesh) -> None:
    listed = mesh.must("ztunnel-config", "certificate", "--node", "node2")
    assert "spiffe://cluster.local/ns/meshed/sa/bob" in listed
    assert "alice" not in listed


def test_keys_are_readable_by_root_only(mesh: Mesh) -> None:
    # Namespaces are files too, but nobody can read them.
    places = [mesh.instance.state, mesh.instance.runtime / "nodes"]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_mount()]
    secret = [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert secret
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)
