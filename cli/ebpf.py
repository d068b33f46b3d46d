"""`ambit ebpf`: what is in the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.choice import with_home
from cli.errors import WRONG, warn
from cli.home import Home, NoAnswer, ask_each, chosen_nodes
from cli.output import Format, document, table

app = typer.Typer(no_args_is_help=True, help="The kernel's side: programs, maps, captured pods.")


@app.callback()
def _callback() -> None:
    """Keeps `ambit ebpf status` a command of its own group."""


@app.command()
@with_home
def status(
    home: Home,
    node: Annotated[str, typer.Option("--node", help="Look only at this node.")] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE,
) -> None:
    """Per node: how many pods are captured each way, what is exempt, how many entries each map has."""
    answers = ask_each(chosen_nodes(home, node), home.kernel)
    found = {name: each for name, each in answers.items() if not isinstance(each, NoAnswer)}
    if output in (Format.JSON, Format.YAML):
        document(found, output)
    else:
        table(
            ("NODE", "PINS", "CAPTURED OUT", "CAPTURED IN", "MAPS"),
            (_row(name, found.get(name)) for name in answers),
        )
    silent = [str(each) for each in answers.values() if isinstance(each, NoAnswer)]
    for sentence in dict.fromkeys(silent):
        warn(sentence)
    if silent:
        raise typer.Exit(WRONG)


def _row(node: str, found: Mapping[str, Any] | None) -> tuple[Any, ...]:
    if found is None:
        return node, "not answering", "", "", ""
    return node, found["pins"], found["enrolled"], len(found["inbound"]), _maps(found["maps"])


def _maps(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in sorted(counts.items()))
