"""The entry point of `ambit`. It imports next to nothing, so that an interrupt finds its handler from the start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


@contextmanager
def ends_at_once() -> Iterator[None]:
    """While modules load there is nothing to clean up: SIGINT simply ends the process, and no import sees it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored (nohup, a script's &): stays so
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Expected failures are one sentence and a non-zero exit status."""
    try:
        with ends_at_once():
            from cli.app import app
            from cli.errors import told_in_one_sentence
        with told_in_one_sentence():
            app()
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except SystemExit as end:
        _leave(end.code)


def _leave(code: str | int | None) -> NoReturn:
    """Ends the process, also while daemon threads still ask parts that do not answer.

    A thread that wakes up in native code while the interpreter ends makes it abort; so then it does not get that far.
    """
    if threading.active_count() == 1 or not isinstance(code, int):
        raise SystemExit(code)
    with suppress(OSError, ValueError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
