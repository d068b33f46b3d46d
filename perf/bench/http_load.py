"""Requests through a waypoint: wrk for HTTP/1.1, h2load for HTTP/2, for gRPC and wherever a rate is given."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.local.errors import LocalError

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nghttpd": "nghttp2-server"}  # programs, and Debian's names
GRPC_PATH = "/bench.Echo/Call"
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
_RATE = re.compile(r"Requests/sec:\s*([\d.]+)")
_LATENCY = re.compile(r"^\s*(50|99)%\s+([\d.]+)(us|ms|s)\s*$", re.M)
_FINISHED = re.compile(r"finished in [\d.]+m?s, ([\d.]+) req/s")
_ANSWERS = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}

Figures = Mapping[str, float]


def install(progress: Callable[[str], None]) -> None:
    """Debian's packages, where they are not there yet. Raises LocalError."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    progress(f"Installing what sends requests (apt-get install {' '.join(missing)})")
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"apt-get {command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")


def wrk(url: str, connections: int, seconds: float) -> list[str]:
    return ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", url]


def h2load(url: str, connections: int, streams: int, seconds: float, log: Path, *more: str) -> list[str]:
    """`log` gets a line per request."""
    duration = (f"-D{max(1, round(seconds))}", "--warm-up-time=0", f"--log-file={log}")
    return ["h2load", "-t1", f"-c{connections}", f"-m{streams}", *duration, *more, url]


def read_wrk(said: str) -> Figures:
    """Raises LocalError: something was not answered, or not with 2xx or 3xx."""
    trouble = [line.strip() for line in said.splitlines() if "Socket errors" in line or "Non-2xx" in line]
    rate = _RATE.search(said)
    if trouble or rate is None:
        raise LocalError("; ".join(trouble) or f"wrk says {said.strip()[-200:]!r}")
    latencies = {f"p{share}": float(value) * _MICROSECONDS[unit] for share, value, unit in _LATENCY.findall(said)}
    return {"rate": float(rate[1]), **latencies}


def read_h2load(said: str, log: Path) -> Figures:
    """Raises LocalError, as `read_wrk`."""
    rate, answers = _FINISHED.search(said), _ANSWERS.search(said)
    if rate is None or answers is None or not int(answers[1]) or any(int(answers[group]) for group in (2, 3, 4)):
        raise LocalError(f"h2load says {said.strip()[-300:]!r}")
    times = sorted(_times(log.read_text().splitlines()))
    log.unlink()
    return {"rate": float(rate[1]), "p50": _share(times, 0.5), "p99": _share(times, 0.99)}


def _times(lines: Sequence[str]) -> list[float]:
    """Microseconds; each line is: when it began, status, how long it took."""
    return [float(line.split("\t")[2]) for line in lines if line.count("\t") >= 2]


def _share(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0
