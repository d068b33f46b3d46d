"""`python -m deploy.node`: the node agent on Kubernetes, configured by its environment (settings.py).

`python -m deploy.node withdraw`: take all pods of this node out of the mesh, and the capture out of the kernel.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import uvloop

from controller.store.directory import DirectoryStore
from controller.store.interface import Store, StoreError
from controller.store.kubernetes import KubernetesStore
from deploy.node.admission import Refused
from deploy.node.home import Home
from deploy.node.own_labels import SELECTOR
from deploy.node.serving import PortTaken
from deploy.node.settings import Settings, SettingsError, read
from deploy.node.withdraw import withdraw
from ebpf.cgroups import NoCgroup2, NoKubepods, enter_host_view
from ebpf.node import Capture, NotLoaded
from mesh.runtime import logs
from mesh.runtime.descriptors import raise_descriptor_limit
from mesh.runtime.lines import LineWriter
from mesh.runtime.signals import until_signalled

log = logging.getLogger("node")

Expected = (SettingsError, StoreError, NotLoaded, NoCgroup2, NoKubepods, PortTaken, Refused, OSError)


def store(settings: Settings) -> Store:
    """Raises StoreError."""
    if settings.objects is not None:
        return DirectoryStore(settings.objects)
    return KubernetesStore.connect(settings.kubeconfig, pod_node=settings.node)


def labelled(settings: Settings) -> Store:
    """Of the whole cluster, with only the pods that have a label of their own. Raises StoreError."""
    if settings.objects is not None:
        return DirectoryStore(settings.objects)
    return KubernetesStore.connect(settings.kubeconfig, pod_labels=SELECTOR)


async def serve(settings: Settings) -> None:
    """Raises what is Expected."""
    capture = Capture.open(settings.pins)
    try:
        await until_signalled(Home(settings, store(settings), labelled(settings), capture).run())
        log.info("the node agent ends; captured pods stay captured")
    finally:
        capture.close()


def run(command: str, writer: LineWriter) -> None:
    """Raises what is Expected."""
    settings = read(os.environ)
    logs.configure(writer, settings.log_json, settings.log_levels)
    if os.geteuid() != 0:
        raise SettingsError("the node agent must run as root: it enters the network namespaces of pods")
    enter_host_view()
    raise_descriptor_limit()
    uvloop.run(serve(settings) if command == "run" else withdraw(settings, store))


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.node", description="The node agent on Kubernetes.")
    parser.add_argument("command", nargs="?", choices=("run", "withdraw"), default="run")
    command = parser.parse_args().command
    writer, problems = LineWriter(sys.stderr.fileno()), list[BaseException]()
    try:
        run(command, writer)
    except* Expected as group:
        problems = leaves(group)
    for problem in problems:
        writer.write(f"node agent: {problem}")
    writer.close()
    return 1 if problems else 0


def leaves(problem: BaseException) -> list[BaseException]:
    if not isinstance(problem, BaseExceptionGroup):
        return [problem]
    return [leaf for each in problem.exceptions for leaf in leaves(each)]


if __name__ == "__main__":
    sys.exit(main())
