"""`ambit ebpf`: what is in the kernel."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.output import Format, document, table
from deploy.local import api
from ebpf.node import Capture

app = typer.Typer(no_args_is_help=True, help="The kernel's side: programs, maps, captured pods.")


@app.callback()
def _callback() -> None:
    """Keeps `ambit ebpf status` a command of its own group."""


@app.command()
def status(output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE) -> None:
    """Per node: how many pods are captured each way, what is exempt, how many entries each map has."""
    api.require_running()
    found = {node: _of_node(node) for node in api.nodes()}
    if output in (Format.JSON, Format.YAML):
        document(found, output)
        return
    table(
        ("NODE", "PINS", "CAPTURED OUT", "CAPTURED IN", "MAPS"),
        (
            (node, each["pins"], each["enrolled"], len(each["inbound"]), _maps(each["maps"]))
            for node, each in found.items()
        ),
    )


def _of_node(node: str) -> dict[str, Any]:
    pins = api.pins(node)
    capture = Capture.open(pins)
    return {
        "pins": str(pins),
        "enrolled": len(capture.enrolled()),
        "inbound": sorted(capture.attached_inbound()),
        "exemptCgroups": sorted(capture.exempted()),
        "maps": capture.counts(),
    }


def _maps(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in sorted(counts.items()))
