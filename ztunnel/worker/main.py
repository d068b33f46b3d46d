"""Starts a worker: `python -m ztunnel.worker --feed FD`, FD being its end of the socket to the agent."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ebpf.node import Capture as KernelCapture
from ebpf.node import NotLoaded
from mesh.runtime.descriptors import raise_descriptor_limit
from mesh.runtime.lines import LineWriter
from mesh.runtime.logs import configure, parse_levels
from mesh.runtime.pages import forget_startup_code, give_large_buffers_back
from ztunnel.channel import WorkerChannel
from ztunnel.worker.context import Capture
from ztunnel.worker.loop import IN
from ztunnel.worker.settings import Settings
from ztunnel.worker.worker import Worker

PINS = "AMBIT_BPF_PINS"
SETTLED = (
    2.0  # seconds until the mesh and the certificates have been taken in, for most: what they need is start-up too
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ztunnel.worker", description="Carries the bytes of enrolled pods.")
    parser.add_argument("--feed", type=int, required=True, metavar="FD", help="the inherited socket to the agent")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
        capture = _open_capture(os.environ)
        feed = socket.socket(fileno=options.feed)
    except (ValueError, NotLoaded) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"worker: descriptor {options.feed} is no socket: {error.strerror}", file=sys.stderr)
        return 2
    serve(feed, capture, settings)
    return 0


def serve(feed: socket.socket, capture: Capture, settings: Settings) -> None:
    """Runs until the agent says Drain, or SIGTERM or SIGINT comes, and the connections have ended."""
    lines = LineWriter(sys.stderr.fileno())
    configure(lines, os.environ.get("LOG_FORMAT") == "json", parse_levels(os.environ.get("RUST_LOG", "info")))
    raise_descriptor_limit()
    give_large_buffers_back()
    worker = Worker(WorkerChannel(feed), capture, settings)
    worker.lines = lines
    _drain_on_signals(worker, settings)
    forget_startup_code()
    worker.loop.later(SETTLED, forget_startup_code)
    try:
        worker.run()
    finally:
        lines.close()


def _open_capture(environment: Mapping[str, str]) -> KernelCapture:
    pins = environment.get(PINS)
    if not pins:
        raise ValueError(f"environment variable {PINS} must name the directory of the pinned eBPF programs")
    return KernelCapture.open(Path(pins))


def _drain_on_signals(worker: Worker, settings: Settings) -> None:
    """Through a descriptor that the loop watches, since a signal alone does not end epoll_wait for good."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def woken(event: int) -> None:
        if not reader.recv(64):
            return
        logging.getLogger("worker").info("asked to end")
        worker.drain(settings.drain_deadline)

    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    worker.loop.watch(reader.fileno(), woken, IN)
    _kept.extend((reader, writer))


_kept: list[socket.socket] = []  # open as long as the process lives
