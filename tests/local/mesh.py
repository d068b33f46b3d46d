"""A real local mesh in the hands of a test: started, used and removed through the API that the command uses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import Key, NotFound
from deploy.local import api
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE, NAMED_NETNS, Instance

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


def quiet(_: str) -> None:
    """Progress that nobody looks at."""


class LocalMesh:
    """The current instance, which the environment names."""

    def __init__(self) -> None:
        self.instance = Instance.current()
        self.store = DirectoryStore(self.instance.objects)

    def apply(self, text: str) -> None:
        for obj in yaml.safe_load_all(text):
            asyncio.run(self.store.apply(obj))

    def get(self, kind: str, name: str, space: str = "") -> dict[str, Any] | None:
        try:
            return dict(asyncio.run(self.store.get(kinds.named(kind), name, space)))
        except NotFound:
            return None

    def all(self, kind: str, space: str = "") -> list[dict[str, Any]]:
        return [dict(each) for each in asyncio.run(self.store.list(kinds.named(kind), space))]

    def delete(self, kind: str, name: str, space: str = "") -> None:
        asyncio.run(self.store.delete(Key(kind, space, name)))

    def edit(self, kind: str, name: str, space: str, change: Callable[[dict[str, Any]], None]) -> None:
        asyncio.run(self.store.change(Key(kind, space, name), change))

    def label(self, space: str, name: str, value: str | None) -> None:
        def change(obj: dict[str, Any]) -> None:
            labels = {**obj["metadata"].get("labels", {}), name: value}
            obj["metadata"]["labels"] = {key: each for key, each in labels.items() if each is not None}

        self.edit("Namespace", space, "", change)

    def status(self, pod: str, space: str) -> dict[str, Any]:
        found = self.get("Pod", pod, space)
        return dict(found.get("status", {})) if found else {}

    def ready(self, pod: str, space: str) -> bool:
        conditions = self.status(pod, space).get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def address(self, pod: str, space: str, v6: bool = False) -> str:
        return next(str(each["ip"]) for each in self.status(pod, space)["podIPs"] if (":" in each["ip"]) == v6)

    def run(self, space: str, pod: str, *command: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own, as the command does it: exec passes the standard streams on."""
        program = "import sys; from deploy.local import api; sys.exit(api.exec_in_pod(*sys.argv[1:3], sys.argv[3:]))"
        arguments = [sys.executable, "-c", program, space, pod, *command]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)

    def python(self, space: str, pod: str, program: str) -> str:
        """What a Python program prints in a pod; its last line when it fails."""
        done = self.run(space, pod, "/usr/bin/python3", "-c", program)
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def ask(self, space: str, pod: str, url: str) -> str:
        """The first line of the answer to GET."""
        program = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
        return self.python(space, pod, program).partition("\n")[0]


def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.05)


def left_behind(instance: Instance) -> list[str]:
    """Everything on this machine that belongs to an instance."""
    places = [instance.cgroup, instance.pins, instance.runtime, instance.state]
    found = [str(place) for place in places if place.exists()]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{instance.name}" in line]
    found += [str(each) for each in NAMED_NETNS.glob(f"{instance.name}-*")]
    return found + [str(path) for path in Path("/run").glob(f"{instance.name}*")]


@contextmanager
def environment(name: str) -> Iterator[None]:
    """Makes `name` the current instance."""
    before = {each: os.environ.get(each) for each in (INSTANCE_VARIABLE, DIRECTORY_VARIABLE)}
    os.environ[INSTANCE_VARIABLE] = name
    os.environ.pop(DIRECTORY_VARIABLE, None)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


@contextmanager
def running(name: str, nodes: int) -> Iterator[LocalMesh]:
    with environment(name):
        api.down(quiet)
        try:
            api.up(nodes, quiet)
            yield LocalMesh()
        finally:
            api.down(quiet)
