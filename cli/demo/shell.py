"""Runs the very commands that a user would type, and shows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from cli.errors import CommandFailed
from cli.output import console

# What a user's PATH would find: these come with the sources.
PROGRAMS: Mapping[str, Sequence[str]] = {"ambit": (sys.executable, "-m", "cli"), "python": (sys.executable,)}
PATIENCE = 400  # seconds for one command, which takes at most thirty: only a hang is a failure


class Shell:
    """The demo's hands. Remembers what it started, so that it can end it."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *words: str) -> str:
        """Shows and runs a command; its output. Raises CommandFailed when it does not exit with 0."""
        _show(words)
        with console.status(f"{words[0]} {words[1]} ..."):
            return self.unseen(*words)

    def unseen(self, *words: str) -> str:
        """As `run`, without a word about it."""
        try:
            done = subprocess.run(_command(words), capture_output=True, text=True, timeout=PATIENCE)
        except FileNotFoundError as problem:
            raise CommandFailed(f"{words[0]}: {problem.strerror}") from None
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{_quoted(words)}: not done within {PATIENCE} s") from None
        if done.returncode:
            raise CommandFailed(f"{_quoted(words)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def open(self, *words: str) -> None:
        """Shows and runs a command whose own lines show how far it is; however long it takes.

        Raises CommandFailed when it does not exit with 0.
        """
        _show(words)
        with subprocess.Popen(_command(words), start_new_session=True) as process:
            try:
                code = process.wait()
            except BaseException:  # we are interrupted: so shall be all that it has started
                os.killpg(process.pid, signal.SIGTERM)
                raise
        if code:
            raise CommandFailed(f"{_quoted(words)}: exit status {code}")

    def quiet(self, *words: str) -> None:
        """Whatever comes of it."""
        subprocess.run(_command(words), capture_output=True, timeout=PATIENCE)

    def background(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on while others run."""
        process = subprocess.Popen(_command(words), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
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


def _show(words: Sequence[str]) -> None:
    console.print("   [dim]$[/dim]", end=" ")
    console.print(_quoted(words), highlight=False, markup=False, soft_wrap=True)
    console.file.flush()  # before the command itself writes


def _command(words: Sequence[str]) -> list[str]:
    return [*PROGRAMS.get(words[0], words[:1]), *words[1:]]


def _quoted(words: Sequence[str]) -> str:
    return " ".join(word if word and " " not in word and "\n" not in word else repr(word) for word in words)
