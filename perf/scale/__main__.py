"""Measures the controller with a large cluster: `make scale`, `python -m perf.scale --pods 1000`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from controller.store.interface import StoreError
from perf.scale import filling
from perf.scale.crowd import Missing
from perf.scale.measure import Figure, Plan, measure
from perf.scale.objects import Size
from tests.store import apiserver
from tests.store.system import System

RESULTS = Path(__file__).parent / "results.json"
_DIGITS = 3  # significant ones: the machine does not repeat more
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_WIDE = 96  # columns that the table needs: better a terminal that breaks lines than figures that are cut
console = Console(highlight=False, width=max(Console().width, _WIDE))
trouble = Console(stderr=True, highlight=False)


def main(
    services: Annotated[int, typer.Option(min=1)] = 1000,
    pods: Annotated[int, typer.Option(min=1)] = 10_000,
    changes: Annotated[int, typer.Option(min=2, help="Of each kind.")] = 300,
    ztunnels: Annotated[list[int] | None, typer.Option(help="How many connect at once; repeatable.")] = None,
    write: Annotated[bool, typer.Option(help="Keep the figures in perf/scale/results.json.")] = True,
) -> None:
    """Fill a real API server, start the controller on it, connect ztunnels, and change things."""
    if reason := apiserver.missing():
        trouble.print(f"scale: {reason}", style="red")
        raise typer.Exit(3)
    plan = Plan(Size(services, pods), changes, tuple(ztunnels or (1, 50)))
    try:
        figures = _scale(plan)
    except (Missing, StoreError) as error:
        trouble.print(f"scale: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        trouble.print("scale: interrupted; everything it had started is gone")
        raise typer.Exit(130) from None
    console.print(_table(figures))
    if write:
        RESULTS.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")


def _scale(plan: Plan) -> list[Figure]:
    with Progress(*_COLUMNS, console=trouble) as progress:
        task = progress.add_task("An API server starts", total=filling.total(plan.size))

        def tell(sentence: str) -> None:
            progress.update(task, description=sentence)
            if not trouble.is_terminal:
                progress.console.print(sentence, markup=False)

        with apiserver.running() as server, tempfile.TemporaryDirectory(prefix="ambit-scale-") as place:
            system = System(server)
            tell("Objects are made")
            filling.fill(system.api, plan.size, lambda count: progress.advance(task, count))
            return asyncio.run(measure(system, plan, Path(place), tell))


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("with")
    table.add_column("", justify="right")
    before = ""
    for each in figures:
        if before and each.at != before:
            table.add_section()
        table.add_row(each.name, each.at if each.at != before else "", f"{each.value:,.{_DIGITS}g} {each.unit}")
        before = each.at
    return table


if __name__ == "__main__":
    sys.argv[0] = "scale"
    typer.run(main)
