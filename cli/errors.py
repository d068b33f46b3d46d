"""How a command ends: one clear sentence on standard error and an exit code that scripts can trust."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

OK = 0
WRONG = 1  # the command worked and what it looked at is not right, or it could not do what was asked
USAGE = 2  # the words of the command were wrong (as Typer itself uses it)


class CommandFailed(Exception):
    """The command cannot go on; the text is what the user reads."""


def fail(sentence: str) -> NoReturn:
    raise CommandFailed(sentence)


def warn(sentence: str) -> None:
    """Something to know that does not end the command."""
    print(f"ambit: {sentence}", file=sys.stderr)


@contextmanager
def told_in_one_sentence(status: int = WRONG) -> Iterator[None]:
    """Ends the process with an expected failure's sentence, and `status`; an unexpected one keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(WRONG) from None
    except Exception as problem:
        if not isinstance(problem, _expected()):
            raise
        warn(str(problem))
        raise SystemExit(status) from None


def _expected() -> tuple[type[Exception], ...]:
    """Loaded when something has failed, so that a command only loads what it works with."""
    from controller.store.interface import StoreError
    from deploy.local.errors import LocalError
    from ebpf.node import NotLoaded

    return CommandFailed, LocalError, NotLoaded, StoreError, PermissionError, ConnectionError
