"""The kept corpus, and a fixed number of mutations of it, through every target."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.engine import Finding, attempt, corpus, explore, mutations
from tests.fuzz.targets import TARGETS

ROUNDS = {
    "frames": 8000,
    "header_block": 30_000,
    "connect_request": 50_000,
    "proxy_header": 15_000,
    "peer_headers": 20_000,
    "dns_query": 20_000,
    "client_hello": 8000,
    "request_target": 40_000,
    "denied_path": 3000,
    "route_table": 5000,
}  # a second or two each


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    inputs = corpus(name)
    assert len(inputs) >= 5, "the corpus is kept in the repository"
    for data in inputs:
        attempt(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    for data in mutations(name, ROUNDS[name], seed=9113):
        attempt(TARGETS[name], data)


def test_the_fuzzer_finds_what_is_wrong() -> None:
    def target(data: bytes) -> None:
        assert b"\xff\x00" not in data

    left = iter(range(100_000))
    with pytest.raises(Finding, match=r"target\(b'"):
        explore("no such corpus", target, "no such package", random.Random(1), lambda: next(left, None) is not None)
