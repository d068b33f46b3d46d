"""`python -m waypoint`: one waypoint, configured by its environment (see config.py).

With WAYPOINT_WORKERS above 1 this process only keeps that many workers alive, which share the HBONE port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop

from mesh.runtime import logs
from mesh.runtime.descriptors import raise_descriptor_limit
from mesh.runtime.environment import ConfigError
from mesh.runtime.lines import LineWriter
from mesh.runtime.pages import give_large_buffers_back
from waypoint.config import Config, read
from waypoint.process import CannotListen, Process
from waypoint.supervisor import WORKER, supervise

STANDARD_ERROR = 2


def main() -> int:
    writer = LineWriter(STANDARD_ERROR)
    try:
        config = read(os.environ)
        logs.configure(writer, config.log_json, config.log_levels)
        raise_descriptor_limit()
        give_large_buffers_back()
        number = os.environ.get(WORKER, "")
        if config.workers > 1 and not number:
            return supervise(config.workers, config.drain_deadline)
        uvloop.run(_run(config, writer, alone=number in ("", "0")))
    except (ConfigError, CannotListen) as error:
        writer.write(f"waypoint: {error}")
        return 1
    finally:
        writer.close()
    return 0


async def _run(config: Config, writer: LineWriter, *, alone: bool) -> None:
    """Until SIGTERM or SIGINT. Raises CannotListen."""
    loop = asyncio.get_running_loop()
    process = Process(config, loop, writer, alone=alone)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    await process.run()


if __name__ == "__main__":
    sys.exit(main())
