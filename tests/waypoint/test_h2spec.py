"""The conformance suite h2spec against the waypoint's HTTP/2, in front of a gRPC server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mesh.model.routing import AppProtocol
from tests.hostile.test_h2spec import h2spec, name, said
from tests.waypoint.rig import Rig
from tests.waypoint.test_http2 import Echo

__all__ = ["h2spec"]
pytestmark = pytest.mark.timeout(300)

# What h2spec wants and this server does otherwise, and why that is right.
EXPECTED = {
    "http2/3.5 Sends invalid connection preface": "what is no preface is HTTP/1 here, and is answered with 400",
    "http2/5.3.1 Sends HEADERS frame that depend on itself": "RFC 9113 section 5.3 has dropped priorities",
    "http2/5.3.1 Sends PRIORITY frame that depend on itself": "RFC 9113 section 5.3 has dropped priorities",
}
CASES = 140  # at least so many have to have run


def test_conformance(h2spec: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with Rig() as rig, Echo() as port:
        rig.simple(AppProtocol.HTTP2, target=port)
        command = [str(h2spec), "-h", "127.0.0.1", "-p", str(rig.listen()), "-o", "3", "-j", str(report)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert report.exists(), ran.stdout + ran.stderr
    cases = [case for suite in ElementTree.parse(report).getroot() for case in suite]
    failed = {
        name(case): said(case) for case in cases if case.find("failure") is not None or case.find("error") is not None
    }
    assert len(cases) >= CASES
    assert failed.keys() - EXPECTED.keys() == set(), failed
