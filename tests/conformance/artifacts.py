"""What the upstream suite needs: the suite itself, its app and its CRDs, all from their Go modules, unchanged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster import build
from tests.cluster.image_archive import make_image
from tests.cluster.pki import Authority
from tests.cluster.plan import CACHE
from tests.kube.artifacts import CannotBuild, digest_of, files_below

SOURCES = Path(__file__).with_name("go")
OUTPUT = CACHE / "conformance"
ECHO_PACKAGES = "istio.io/istio/pkg/test/echo/cmd"
ECHO_IMAGE = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1"  # as the suite's manifests name it
API, SUITE = "sigs.k8s.io/gateway-api", "sigs.k8s.io/gateway-api/conformance"


def version() -> str:
    """Of the suite, as its report is named: "v1.6.3"."""
    lines = (SOURCES / "suite" / "go.mod").read_text().splitlines()
    return next(words[-1] for line in lines if SUITE in (words := line.split()))


def built() -> bool:
    return _current("suite").exists() and _current("echo").exists()


def _current(name: str) -> Path:
    """Where what is made of these sources is, or will be."""
    return OUTPUT / f"{name}-{digest_of([*files_below(SOURCES / name), Path(__file__)])}"


def suite() -> Path:
    """The compiled suite. Raises CannotBuild, CalledProcessError."""
    source, program = SOURCES / "suite", _current("suite")
    if not program.exists():
        go("test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", str(program), ".", source=source)
    return program


def custom_resources() -> Path:
    """The directory of the suite's own CRDs, experimental channel: the one that has every field."""
    module = json.loads(go("mod", "download", "-json", API, source=SOURCES / "suite"))
    return Path(module["Dir"]) / "config" / "crd" / "experimental"


def echo_archive() -> Path:
    """The app of the suite's pods, which answers in HTTP, HTTP/2, gRPC, TLS and TCP. As `suite`."""
    source, archive = SOURCES / "echo", _current("echo")
    if not archive.exists():
        programs = {name: OUTPUT / name for name in ("server", "client")}
        for name, program in programs.items():
            go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(program), f"{ECHO_PACKAGES}/{name}", source=source)
        Authority(OUTPUT).write(OUTPUT, "echo", "echo", (), ("echo",))
        certificate = {"/cert.crt": OUTPUT / "echo.crt", "/cert.key": OUTPUT / "echo.key"}
        in_image = {f"/usr/local/bin/{name}": program for name, program in programs.items()}
        make_image(archive, ECHO_IMAGE, ("/usr/local/bin/server",), in_image | certificate)
    return archive


def go(*arguments: str, source: Path) -> str:
    """Its standard output."""
    compiler = build.go()
    if compiler is None:
        raise CannotBuild(str(build.NoGoError()))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    environment = build.environment() | {"GOFLAGS": "-modcacherw -buildvcs=false"}
    command = (compiler, *arguments)
    return subprocess.run(command, cwd=source, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":  # before a test run, so that no test's time-out has to allow for it
    suite()
    echo_archive()
