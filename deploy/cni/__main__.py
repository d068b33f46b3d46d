"""`python -m deploy.cni install|remove|run`: the installer by itself; in a cluster the node agent runs it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from deploy.cni.conflist import Settings
from deploy.cni.install import BINARY, Installer, InstallError
from mesh.runtime.signals import until_signalled


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = Settings(options.socket, options.enrolled_namespaces, options.timeout, options.retry)
    try:
        asyncio.run(_perform(options, settings))
    except InstallError as error:
        print(f"ambit: {error}", file=sys.stderr)
        return 1
    return 0


async def _perform(options: argparse.Namespace, settings: Settings) -> None:
    installer = Installer(options.conf_dir, options.bin_dir, settings, options.binary)
    if options.command == "remove":
        installer.remove()
        return
    running = asyncio.create_task(installer.run())
    if options.command == "install":
        installed = asyncio.create_task(installer.installed.wait())
        installed.add_done_callback(lambda _: running.cancel())
    await until_signalled(running)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.cni", description=__doc__)
    commands = {
        "install": "put the plugin into the chain, waiting for one if there is none, and end",
        "remove": "take the plugin out of all chains, then remove its binary",
        "run": "install, and repair what others change, until SIGTERM; the plugin stays then",
    }
    subparsers = parser.add_subparsers(dest="command", required=True)
    for command, meaning in commands.items():
        _add_options(subparsers.add_parser(command, help=meaning))
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    add = parser.add_argument
    add(
        "--conf-dir",
        type=Path,
        default=Path("/etc/cni/net.d"),
        help="where the runtime reads configuration (%(default)s)",
    )
    add("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="where the runtime finds plugins (%(default)s)")
    add("--binary", type=Path, default=BINARY, help="the plugin to install (%(default)s)")
    add("--socket", default=default.agent_socket, help="of the node agent, a path of the host (%(default)s)")
    add("--enrolled-namespaces", default=default.enrolled_namespaces, help="file the agent keeps (%(default)s)")
    add("--timeout", type=float, default=default.timeout, help="seconds to wait for the agent's answer (%(default)s)")
    add("--retry", type=float, default=default.retry, help="seconds to wait for an agent that restarts (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
