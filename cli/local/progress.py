"""Live progress for people: what is being done now, and a tick when it is done. Plain lines when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape

from cli.output import stderr

Step = Callable[[str], None]


@contextmanager
def steps() -> Iterator[Step]:
    """Yields a function to call with a sentence when the next step begins."""
    if not stderr.is_terminal:
        yield lambda sentence: stderr.print(f"  {sentence}", highlight=False, markup=False)
        return
    done: list[str] = []
    with stderr.status("...") as spinner:

        def begin(sentence: str) -> None:
            _tick(done)
            done.append(sentence)
            spinner.update(sentence)

        yield begin
    _tick(done)


@contextmanager
def waiting() -> Iterator[Step]:
    """Yields a function to call, as often as one likes, with what holds things up; "" for nothing worth telling."""
    if not stderr.is_terminal:
        yield _Once()
        return
    with stderr.status("waiting") as spinner:
        yield lambda why: spinner.update(escape(f"waiting: {why}" if why else "waiting"))


class _Once:
    """Prints a sentence when it is another one than before."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, sentence: str) -> None:
        if sentence and sentence != self._last:
            stderr.print(f"  waiting: {sentence}", highlight=False, markup=False, soft_wrap=True)
        self._last = sentence


def _tick(done: list[str]) -> None:
    if done:
        stderr.print(f"[green]✓[/green] {done[-1]}", highlight=False)
