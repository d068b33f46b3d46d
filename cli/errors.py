"""How a command ends: one clear sentence on standard error and an exit code that scripts can trust."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from controller.store.interface import StoreError
from deploy.local.errors import LocalError
from ebpf.node import NotLoaded

OK = 0
WRONG = 1  # the command worked and what it looked at is not right, or it could not do what was asked
USAGE = 2  # the words of the command were wrong (as Typer itself uses it)


class CommandFailed(Exception):
    """The command cannot go on; the text is what the user reads."""


def fail(sentence: str) -> NoReturn:
    raise CommandFailed(sentence)


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Ends the process with the sentence of an expected failure; an unexpected one keeps its traceback."""
    try:
        yield
    except (CommandFailed, LocalError, NotLoaded, StoreError, PermissionError, ConnectionError) as problem:
        print(f"ambit: {problem}", file=sys.stderr)
        raise SystemExit(WRONG) from None
    except BrokenPipeError:
        raise SystemExit(WRONG) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
