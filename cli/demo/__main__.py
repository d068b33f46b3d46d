"""Runs the demo: sets up, tells the story, takes everything down again whatever happens. Exit status 0: all proved."""

from __future__ import annotations

import os
import signal
import sys

from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.demo.story import Story
from cli.errors import CommandFailed
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE

NAME = "ambit-demo"  # an instance of its own: a mesh that the user runs is not touched


def main() -> int:
    os.environ[INSTANCE_VARIABLE] = NAME
    os.environ.pop(DIRECTORY_VARIABLE, None)
    signal.signal(signal.SIGTERM, _interrupt)
    ledger = Ledger()
    shell = Shell()
    try:
        shell.quiet("local", "down")  # what an earlier demo may have left
        Story(shell, ledger).tell()
    except CommandFailed as problem:
        ledger.broken(str(problem))
    except KeyboardInterrupt:
        ledger.broken("interrupted")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shell.end()
        shell.quiet("local", "down")
    ledger.print()
    return 0 if ledger.proved() else 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
