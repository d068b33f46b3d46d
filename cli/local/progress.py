"""Live progress for people: what is being done now, and a tick when it is done. Plain lines when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def _tick(done: list[str]) -> None:
    if done:
        stderr.print(f"[green]✓[/green] {done[-1]}", highlight=False)
