"""Runs the demo on a local mesh. Exit status 0: all proved."""

from __future__ import annotations

import os
import sys

from cli.demo.ledger import Ledger
from cli.demo.local import LocalStory
from cli.demo.shell import Shell
from cli.demo.telling import told
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE

NAME = "ambit-demo"  # an instance of its own: a mesh that the user runs is not touched


def main() -> int:
    os.environ[INSTANCE_VARIABLE] = NAME
    os.environ.pop(DIRECTORY_VARIABLE, None)
    return told(tell, clear)


def tell(shell: Shell, ledger: Ledger) -> None:
    clear(shell)  # what an earlier demo may have left
    LocalStory(shell, ledger).tell()


def clear(shell: Shell) -> None:
    shell.quiet("ambit", "local", "down")


if __name__ == "__main__":
    sys.exit(main())
