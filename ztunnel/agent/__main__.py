"""`python -m ztunnel.agent`: a node's ztunnel, configured by its environment (see config.py)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop

from ebpf.cgroups import NoCgroup2, cgroup_id, enter_host_view, own_cgroup
from ebpf.node import Capture, NotLoaded
from mesh.runtime import logs
from mesh.runtime.descriptors import raise_descriptor_limit
from mesh.runtime.environment import ConfigError
from mesh.runtime.lines import LineWriter
from ztunnel.agent.admin import PortTaken
from ztunnel.agent.agent import Agent
from ztunnel.agent.config import Config, Inpod, read
from ztunnel.agent.snapshot import SnapshotError

STANDARD_ERROR = 2


class CannotStart(Exception):
    """One sentence for the person who started it."""


def main() -> int:
    writer = LineWriter(STANDARD_ERROR)
    try:
        config = read(os.environ)
        if os.geteuid() != 0:
            raise CannotStart("ztunnel must run as root: it opens sockets in the network namespaces of pods")
        logs.configure(writer, config.process.log_json, config.process.log_levels)
        enter_host_view()
        uvloop.run(run(config, writer))
    except (CannotStart, ConfigError, SnapshotError, PortTaken) as error:
        writer.write(f"ztunnel: {error}")
        return 1
    finally:
        writer.close()
    return 0


async def run(config: Config, writer: LineWriter) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart, SnapshotError, PortTaken."""
    raise_descriptor_limit()
    capture = open_capture(config.inpod)
    agent = Agent(config, capture, writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.stop)
    try:
        await agent.run()
    finally:
        capture.close()


def open_capture(inpod: Inpod) -> Capture:
    """The capture of this node, told not to capture us. Raises CannotStart."""
    try:
        capture = Capture.open(inpod.bpf_pins)
        capture.exempt(cgroup_id(own_cgroup()))
    except (NotLoaded, NoCgroup2) as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(f"cannot use the eBPF programs at {inpod.bpf_pins}: {error.strerror}") from error
    return capture


if __name__ == "__main__":
    sys.exit(main())
