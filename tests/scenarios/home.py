"""Where a mesh lives: what a scenario may ask of it, so that each is written once and runs on every home."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cli.packets import PacketWatch


class Running:
    """A program that goes on in a pod: say lines to it, read its lines. It ends when its standard input does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()

    def finish(self) -> Any:
        """Ends its standard input; what it says last, which is JSON."""
        output, _ = self.process.communicate(timeout=120)
        return json.loads(output.splitlines()[-1])


class Programs:
    """Those that tests have begun, to be ended with them."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, command: Sequence[str], environment: dict[str, str] | None = None) -> Running:
        """It has said its first line."""
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._running.append(process)
        running = Running(process)
        assert running.line(), f"{' '.join(command)} did not begin"
        return running

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()


class Home(Protocol):
    """The pods of mesh.yaml with a mesh around them. Pods and Services are named `namespace/name`."""

    @property
    def bulk(self) -> int:
        """Bytes of a large transfer."""

    def apply(self, manifest: str) -> None:
        """PROGRAMS in it is where programs/ is in a pod."""

    def delete_pod(self, pod: str) -> None: ...

    def phase(self, pod: str) -> str: ...

    def containers(self, namespace: str) -> list[str]:
        """Ids: the same as before if nothing was restarted."""

    def label(self, wanted: bool, namespace: str = "meshed") -> None:
        """Returns when every pod of the namespace, and every node's view of it, is where the label wants it."""

    def label_pod(self, pod: str, mode: str | None) -> None:
        """Its own label; None takes it away. Returns as `label`."""

    def redirection(self, pod: str) -> str | None:
        """What its annotation says of its enrolment."""

    def address(self, pod: str, v6: bool = False) -> str: ...

    def service_address(self, service: str, v6: bool = False) -> str: ...

    def client(self, pod: str, habit: str, host: str, port: int, *arguments: Any) -> Any:
        """The answer of a habit of programs/client.py in the pod."""

    def start(self, pod: str, habit: str, host: str, port: int) -> Running: ...

    def watch(self) -> PacketWatch:
        """Reads packets where nodes meet."""


def until(true: Callable[[], bool], what: str, patience: float = 60.0) -> None:
    """Waits for something to become true; a test fails with `what` when it does not."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.05)
