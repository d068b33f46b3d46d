"""The `ambit` command: what a user types."""

from __future__ import annotations

import typer

from cli import ebpf, local, status, ztunnel_config
from cli.errors import told_in_one_sentence

app = typer.Typer(no_args_is_help=True, add_completion=True, help="Ambit: a sidecarless service mesh.")
app.add_typer(local.app, name="local")
app.add_typer(ztunnel_config.app, name="ztunnel-config")
app.add_typer(ztunnel_config.app, name="zc", hidden=True)
app.add_typer(ebpf.app, name="ebpf")
app.command("status")(status.status)


def main() -> None:
    """The entry point: expected failures are one sentence and a non-zero exit status."""
    with told_in_one_sentence():
        app()
