"""Tells a story and takes everything down again whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Callable

from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.errors import OK, WRONG, CommandFailed, warn

INTERRUPTED = 130  # as shells have it


def prepared(prepare: Callable[[Shell], None]) -> int:
    """What has to be there before the story can begin, and stays afterwards. The exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        prepare(Shell())
    except CommandFailed as problem:
        warn(str(problem))
        return WRONG
    except KeyboardInterrupt:
        warn("interrupted before the demo has begun; the next one goes on from what is cached")
        return INTERRUPTED
    return OK


def told(tell: Callable[[Shell, Ledger], None], clear: Callable[[Shell], None]) -> int:
    """The exit status: 0 when all was proved. `clear` must not mind that there is nothing."""
    signal.signal(signal.SIGTERM, _interrupt)
    ledger, shell = Ledger(), Shell()
    try:
        tell(shell, ledger)
    except CommandFailed as problem:
        ledger.broken(str(problem))
    except KeyboardInterrupt:
        ledger.broken("interrupted")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        shell.end()
        clear(shell)
    ledger.print()
    return 0 if ledger.proved() else 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
