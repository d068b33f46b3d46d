"""What the benchmark reads from the programs that send requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.errors import LocalError
from perf.bench.http_load import read_h2load, read_wrk

WRK = """\
Running 1s test @ http://10.0.0.1:80/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   635.91us    0.89ms  12.92ms   93.69%
    Req/Sec    56.20k     8.07k   62.00k    86.54%
  Latency Distribution
     50%  250.00us
     75%  491.00us
     90%  700.00us
     99%    5.80ms
  7488 requests in 1.00s, 7.76MB read
Requests/sec:   7488.53
Transfer/sec:      7.76MB
"""
H2LOAD = """\
finished in 1.00s, 1234.00 req/s, 1.35MB/s
requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_rates_and_latencies_of_wrk() -> None:
    assert read_wrk(WRK) == {"rate": 7488.53, "p50": 250.0, "p99": 5800.0}


@pytest.mark.parametrize(
    "trouble", ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 5\n"]
)
def test_failures_are_no_figures_of_wrk(trouble: str) -> None:
    with pytest.raises(LocalError, match=trouble.strip()[:10]):
        read_wrk(WRK + trouble)


def test_rates_and_latencies_of_h2load(tmp_path: Path) -> None:
    log = tmp_path / "requests.log"
    log.write_text("".join(f"17000000000\t200\t{microseconds}\n" for microseconds in (40, 10, 30, 20)))
    assert read_h2load(H2LOAD, log) == {"rate": 1234.0, "p50": 30.0, "p99": 40.0}


@pytest.mark.parametrize("codes", ["0 2xx, 0 3xx, 0 4xx, 0 5xx", "3 2xx, 0 3xx, 0 4xx, 1 5xx"])
def test_failures_are_no_figures_of_h2load(codes: str, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="h2load says"):
        read_h2load(H2LOAD.replace("4 2xx, 0 3xx, 0 4xx, 0 5xx", codes), tmp_path / "none")


@pytest.mark.parametrize("read", [read_wrk, lambda said: read_h2load(said, Path("none"))])
def test_nonsense_is_quoted(read: object) -> None:
    with pytest.raises(LocalError, match="nonsense"):
        read("nonsense")  # type: ignore[operator]
