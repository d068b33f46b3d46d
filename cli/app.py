"""The commands of `ambit`, by name. Each is loaded when it is used: help and completion need only this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.main import ends_at_once


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is (`module:attribute`, a Typer app or a function) and the first sentence of its help."""

    place: str
    help: str
    hidden: bool = False


_ZTUNNEL_CONFIG = "What each ztunnel knows: workloads, services, policies, certificates, connections."
ENTRIES: Mapping[str, Entry] = {
    "status": Entry("cli.status:status", "What runs, what is enrolled, what is wrong; exit status 1 if something is."),
    "ztunnel-config": Entry("cli.ztunnel_config:app", _ZTUNNEL_CONFIG),
    "waypoint": Entry("cli.waypoint.commands:app", "Waypoints: proxies for HTTP, of a service account or shared."),
    "explain": Entry("cli.explain.command:explain", "What becomes of a connection or request, and why."),
    "zc": Entry("cli.ztunnel_config:app", _ZTUNNEL_CONFIG, hidden=True),
    "ebpf": Entry("cli.ebpf:app", "The kernel's side: programs, maps, captured pods."),
    "install": Entry("cli.install.commands:install", "Installs Ambit on a cluster, and waits until it is ready."),
    "upgrade": Entry("cli.install.commands:upgrade", "Changes an installation, node after node."),
    "uninstall": Entry("cli.install.commands:uninstall", "Takes the whole cluster out of the mesh, and removes Ambit."),
    "check": Entry("cli.install.commands:check", "Whether Ambit can work here, and what to do where it cannot."),
    "local": Entry("cli.local:app", "A whole mesh on this machine: namespaces as nodes and pods, no Kubernetes."),
}


class Commands(TyperGroup):
    """Lists commands without loading them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, entry in ENTRIES.items():
            self.commands[name] = TyperCommand(name, help=entry.help, hidden=entry.hidden)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(ENTRIES)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and command else command, rest


def load(name: str) -> Any:
    """The command itself, as Typer made it."""
    module, _, attribute = ENTRIES[name].place.partition(":")
    with ends_at_once():
        found: typer.Typer | Callable[..., Any] = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=True)


@app.callback()
def _ambit() -> None:
    """Ambit: a sidecarless service mesh."""
