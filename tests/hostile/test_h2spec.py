"""The conformance suite h2spec against a real worker's port 15008.

h2spec cannot present a certificate, so it talks through a bridge that adds TLS with a mesh certificate, nothing else.
Its requests are GET and POST: to a server of tunnels they are well-formed requests that are answered with 400.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.hostile.arena import Arena
from tests.worker.hbone_client import tls_socket
from tests.worker.node import PATIENCE, in_background

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

MODULE = Path(__file__).with_name("h2spec")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ambit"
SECTIONS = ("generic", "http2", "hpack")

# What h2spec wants and this server does otherwise, and why that is right.
EXPECTED: dict[str, str] = {}


@pytest.fixture(scope="session")
def h2spec() -> Path:
    """Built once from the Go modules that h2spec/go.sum names."""
    if shutil.which("go") is None:
        pytest.skip("h2spec is a Go program and there is no Go compiler on this machine")
    binary = CACHE / "h2spec-2.2.1"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = CACHE / f"h2spec.{os.getpid()}"
        command = ["go", "build", "-mod=readonly", "-o", str(unfinished), "github.com/summerwind/h2spec/cmd/h2spec"]
        built = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, check=False)
        if built.returncode:
            pytest.skip(f"h2spec cannot be built here: {built.stderr.strip().splitlines()[-1]}")
        unfinished.rename(binary)
    return binary


def bridge(arena: Arena) -> socket.socket:
    """Plain text at one end, TLS with the certificate of pod a at the other."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                in_background(lambda plain=plain: carry(arena, plain))  # type: ignore[misc]

    in_background(serve)
    return listener


def carry(arena: Arena, plain: socket.socket) -> None:
    """Until one of the two ends; then both do."""
    with plain, contextlib.suppress(OSError), tls_socket(arena.node.a, arena.node.b, arena.identity) as secured:
        while True:
            ready = [secured] if secured.pending() else select.select([plain, secured], [], [], PATIENCE)[0]
            for source, target in ((plain, secured), (secured, plain)):
                if source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    target.sendall(data)
            if not ready:
                return


@pytest.mark.parametrize("section", SECTIONS)
def test_conformance(arena: Arena, h2spec: Path, section: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with arena.attack(16), bridge(arena) as listener:
        port = str(listener.getsockname()[1])
        command = [str(h2spec), section, "-h", "127.0.0.1", "-p", port, "-o", "2", "-j", str(report)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert report.exists(), ran.stdout + ran.stderr
    cases = [case for suite in ElementTree.parse(report).getroot() for case in suite]
    failed = {
        name(case): said(case) for case in cases if case.find("failure") is not None or case.find("error") is not None
    }
    assert len(cases) >= 8
    assert failed.keys() - EXPECTED.keys() == set(), failed


def name(case: ElementTree.Element) -> str:
    return f"{case.get('package')} {case.get('classname')}"


def said(case: ElementTree.Element) -> str:
    found = case.find("failure")
    return re.sub(r"\s+", " ", "".join(found.itertext())) if found is not None else "error"
