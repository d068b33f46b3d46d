"""Runs the very commands that a user would type, and shows them."""

from __future__ import annotations

import subprocess
import sys

from cli.errors import CommandFailed
from cli.output import console

AMBIT = (sys.executable, "-m", "cli")
PATIENCE = 90  # seconds for one command: the slowest compiles eBPF programs for each node


class Shell:
    """The demo's hands. Remembers what it started, so that it can end it."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def ambit(self, *words: str) -> str:
        """Shows and runs `ambit WORDS`; its output. Raises CommandFailed when it does not exit with 0."""
        console.print(f"   [dim]$[/dim] ambit {_quoted(words)}", highlight=False, markup=True)
        with console.status(f"ambit {words[0]} ..."):
            done = subprocess.run([*AMBIT, *words], capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise CommandFailed(f"ambit {_quoted(words)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def attempt(self, *words: str) -> str | None:
        """As `ambit`, unseen; None when it fails."""
        done = subprocess.run([*AMBIT, *words], capture_output=True, text=True, timeout=PATIENCE)
        return None if done.returncode else done.stdout

    def quiet(self, *words: str) -> None:
        subprocess.run([*AMBIT, *words], capture_output=True, timeout=PATIENCE)

    def background(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on while others run."""
        process = subprocess.Popen([*AMBIT, *words], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _quoted(words: tuple[str, ...]) -> str:
    return " ".join(word if word and " " not in word and "\n" not in word else repr(word) for word in words)
