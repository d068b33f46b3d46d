"""A small fuzzer: inputs from a corpus, mutated; an input that reaches new code joins the corpus.

    python -m tests.fuzz frames --seconds 600        # guided by coverage; writes what it finds to tests/fuzz/corpus
    pytest tests/fuzz                                # the corpus as it is, and a fixed number of mutations

A target takes bytes and raises for a finding only. The tests run without guidance and from a fixed seed, so they give
the same answer each time.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 4096
INTERESTING = [b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"]

Target = Callable[[bytes], None]


class Finding(AssertionError):
    """A target failed; the message holds the input."""


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def keep(name: str, data: bytes) -> None:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def attempt(target: Target, data: bytes) -> None:
    try:
        target(data)
    except Exception as error:
        raise Finding(f"{getattr(target, '__name__', target)}({data!r}): {error!r}") from error


def mutate(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four random edits."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        chance.choice(EDITS)(chance, result, others)
    return bytes(result[:LARGEST])


def _span(chance: random.Random, data: bytearray) -> slice:
    start = chance.randint(0, len(data))
    return slice(start, start + min(chance.randint(0, 40), len(data) - start))


def _flip(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _nudge(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    if data:
        at = chance.randrange(len(data))
        data[at] = (data[at] + chance.choice([-1, 1])) & 0xFF


def _insert(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(INTERESTING) if chance.random() < 0.5 else chance.randbytes(chance.randint(1, 9))


def _overwrite(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at, piece = chance.randint(0, len(data)), chance.choice(INTERESTING)
    data[at : at + len(piece)] = piece


def _remove(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    del data[_span(chance, data)]


def _repeat(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    span = _span(chance, data)
    data[span.stop : span.stop] = data[span] * chance.randint(1, 3)


def _splice(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = bytearray(chance.choice(others)) if others else bytearray()
    at = chance.randint(0, len(data))
    data[at:at] = other[_span(chance, other)]


EDITS = [_flip, _nudge, _insert, _overwrite, _remove, _repeat, _splice]


def mutations(name: str, rounds: int, seed: int) -> Iterator[bytes]:
    """A fixed sequence of inputs."""
    chance, known = random.Random(seed), corpus(name) or [b""]
    for _ in range(rounds):
        yield mutate(chance, chance.choice(known), known)


@contextmanager
def _lines_of(package: str, seen: set[tuple[str, int]]) -> Iterator[None]:
    """Collects the lines that run in files of a package."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if package not in name:
            return None
        if event == "line":
            seen.add((name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def explore(name: str, target: Target, package: str, chance: random.Random, more: Callable[[], bool]) -> int:
    """Guided: goes on while `more()`; the number of inputs that were new. Raises Finding."""
    covered: set[tuple[str, int]] = set()
    known = corpus(name) or [b""]
    for data in known:
        with _lines_of(package, covered):
            attempt(target, data)
    new = 0
    while more():
        data = mutate(chance, chance.choice(known), known)
        reached: set[tuple[str, int]] = set()
        with _lines_of(package, reached):
            attempt(target, data)
        if not reached <= covered:
            covered |= reached
            known.append(data)
            keep(name, data)
            new += 1
    return new
