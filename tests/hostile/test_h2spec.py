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
import ssl
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
NO_BODY = "wants a response with DATA; a refusal has none"
OVER = "the request is refused at once, so its stream is over (RFC 9113 section 8.1) before the fault comes"
EXPECTED: dict[str, str] = {
    "generic/2 Sends a WINDOW_UPDATE frame on half-closed (remote) stream": NO_BODY,
    "generic/2 Sends a PRIORITY frame on half-closed (remote) stream": NO_BODY,
    "http2/4.2 Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE": "16 kB, where we allow 1 MB",
    "http2/5.1 closed: Sends a DATA frame after sending RST_STREAM frame": OVER,
    "http2/5.1 closed: Sends a HEADERS frame after sending RST_STREAM frame": OVER,
    "http2/5.1.2 Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded": OVER,
    "http2/5.3.1 Sends HEADERS frame that depend on itself": "RFC 9113 section 5.3 has dropped priorities",
    "http2/5.3.1 Sends PRIORITY frame that depend on itself": "RFC 9113 section 5.3 has dropped priorities",
    "http2/6.9 Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream": OVER,
    "http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a "
    "stream": OVER,
    "http2/8.1 Sends a second HEADERS frame without the END_STREAM flag": OVER,
    "http2/8.1.2.1 Sends a HEADERS frame that contains a pseudo-header field as trailers": OVER,
    'http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame '
    "payload length": OVER,
    'http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the '
    "multiple DATA frames payload length": OVER,
}
CASES = {"generic": 40, "http2": 80, "hpack": 7}  # at least so many have to have run


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
    """Until one of the two ends; then both do, with what was sent last."""
    with plain, tls_socket(arena.node.a, arena.node.b, arena.identity) as secured:
        with contextlib.suppress(OSError):
            while pass_on(plain, secured):
                pass
        with contextlib.suppress(OSError):
            while data := secured.recv(1 << 16):
                plain.sendall(data)
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1 << 16):  # closing with something unread would be a reset
                pass


def pass_on(plain: socket.socket, secured: ssl.SSLSocket) -> bool:
    """Whether it goes on."""
    ready = [secured] if secured.pending() else select.select([plain, secured], [], [], PATIENCE)[0]
    for source, target in ((secured, plain), (plain, secured)):
        if source in ready:
            data = source.recv(1 << 16)
            if not data:
                target.shutdown(socket.SHUT_RDWR)
                return False
            target.sendall(data)
    return bool(ready)


@pytest.mark.parametrize("section", SECTIONS)
def test_conformance(arena: Arena, h2spec: Path, section: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with arena.attack(16), bridge(arena) as listener:
        port = str(listener.getsockname()[1])
        command = [str(h2spec), section, "-h", "127.0.0.1", "-p", port, "-o", "1", "-j", str(report)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert report.exists(), ran.stdout + ran.stderr
    cases = [case for suite in ElementTree.parse(report).getroot() for case in suite]
    failed = {
        name(case): said(case) for case in cases if case.find("failure") is not None or case.find("error") is not None
    }
    assert len(cases) >= CASES[section]
    assert failed.keys() - EXPECTED.keys() == set(), failed


def name(case: ElementTree.Element) -> str:
    return f"{case.get('package')} {case.get('classname')}"


def said(case: ElementTree.Element) -> str:
    found = case.find("failure")
    return re.sub(r"\s+", " ", "".join(found.itertext())) if found is not None else "error"
