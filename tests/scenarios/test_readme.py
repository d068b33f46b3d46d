"""Every `ambit` command of the README, in its order, does what it is there for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import Mesh

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


def _commands() -> list[list[str]]:
    lines = (ROOT / "README.md").read_text().splitlines()
    shown = [line.strip() for line in lines if line.startswith("    ambit ")]
    return [shlex.split(line, comments=True)[1:] for line in shown]


@pytest.fixture
def reader() -> Iterator[Mesh]:
    mesh = Mesh("ambit-test-readme")
    yield mesh
    mesh.ambit("local", "down")


def test_commands(reader: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = _commands()
    assert commands[0][:2] == ["local", "up"]
    assert commands[-1][:2] == ["local", "down"]
    answers = [reader.must(*words) for words in commands]
    assert sum("catalog" in answer and "sees" in answer for answer in answers) >= 2  # before the label and after it
