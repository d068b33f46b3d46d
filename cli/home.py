"""Where a mesh runs, as far as the CLI must know: which nodes there are, and how to ask their loopback admin ports.

There are two homes, `cli.local.home` and `cli.kubernetes.home`; `cli.choice` says which one a command means.
"""

from __future__ import annotations

import http.client
import json
import math
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from cli.errors import fail
from controller.store.interface import Kind, Object, Store
from mesh.model.ports import ADMIN

CONTROLLER_ADMIN = 15014
TIMEOUT = 5.0  # seconds; an admin answer takes milliseconds
AT_ONCE = 16  # questions on their way: a cluster of a hundred nodes is read within a second, and no API server minds
LARGEST_ANSWER = 512 << 20  # bytes; a dump of 10,000 pods has some tens of MB

T = TypeVar("T")


class NoAnswer(Exception):
    """One part of the mesh could not be asked; the others may. One sentence, without a full stop."""


class NoRight(NoAnswer):
    """We may not ask; it is the same for all parts of that kind."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process or container that runs the mesh."""

    running: bool
    state: str  # running, not running, or the reason that Kubernetes gives
    where: str  # a process id, or a node
    starts: int
    last_end: str

    def document(self) -> dict[str, Any]:
        shown = asdict(self)
        return {"lastEnd" if name == "last_end" else name: value for name, value in shown.items()}


class Home(Protocol):
    def nodes(self) -> Sequence[str]:
        """Those that have a ztunnel, or should. Raises CommandFailed, LocalError: there is no mesh."""

    def controllers(self) -> Sequence[str]:
        """Names for `fetch`: one, or several of which one leads."""

    def parts(self) -> Mapping[str, Part]: ...

    def problems(self) -> Sequence[str]:
        """What is wrong with how the mesh is run, beyond its parts."""

    def objects(self, kind: Kind, namespace: str = "") -> Sequence[Object]:
        """All objects of a kind, in all namespaces when none is named. Raises NoAnswer."""

    def store(self) -> Store:
        """The objects themselves, to be read and written. Raises LocalError, CommandFailed: there is no mesh."""

    def fetch(self, place: str, port: int, path: str) -> bytes:
        """GET from a loopback port of a node or a controller. Raises NoAnswer. Any thread may call it."""

    def fetch_from_pod(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        """As `fetch`, from a loopback port of any pod."""

    def kernel(self, node: str) -> Mapping[str, Any]:
        """What a node's capture is (ebpf.report). Raises NoAnswer. Any thread may call it."""


def chosen_nodes(home: Home, node: str) -> Sequence[str]:
    """All nodes, or the one that --node names."""
    nodes = home.nodes()
    if node and node not in nodes:
        fail(f"there is no node {node!r} in the mesh; there are {', '.join(nodes) or 'none'}")
    return [node] if node else nodes


def ask(home: Home, place: str, path: str, port: int = ADMIN) -> Any:
    """The answer as JSON. Raises NoAnswer."""
    answer = home.fetch(place, port, path)
    try:
        return json.loads(answer)
    except ValueError as problem:
        raise NoAnswer(f"what {place} answers to {path} is no JSON: {problem}") from None


def ask_each(places: Sequence[str], question: Callable[[str], T]) -> dict[str, T | NoAnswer]:
    """Puts a question to all places at once; an answer for each, in their order, within a bounded time.

    The threads are daemons: one that hangs in a name resolver or a credential plugin does not keep the command alive.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, T | NoAnswer | BaseException]] = queue.SimpleQueue()
    for place in places:
        waiting.put(place)
    for _ in range(min(AT_ONCE, len(places))):
        threading.Thread(target=_work, args=(waiting, answers, question), daemon=True).start()
    # Each question may take its connection, its answer and some slack; what is late is told as such.
    return _collect(places, answers, 3 * TIMEOUT * math.ceil(len(places) / AT_ONCE))


def _work(waiting: queue.SimpleQueue[str], answers: queue.SimpleQueue[Any], question: Callable[[str], Any]) -> None:
    while True:
        try:
            place = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answers.put((place, question(place)))
        except Exception as problem:
            answers.put((place, problem))


def _collect(places: Sequence[str], answers: queue.SimpleQueue[Any], patience: float) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(places, NoAnswer(f"no answer within {patience:.0f} s"))
    for _ in places:
        try:
            place, answer = answers.get(timeout=patience)
        except queue.Empty:
            break
        if isinstance(answer, BaseException) and not isinstance(answer, NoAnswer):
            raise answer
        found[place] = answer
    return found


def http_get(connection: socket.socket, path: str) -> bytes:
    """GET over a connection that stands, which it closes. Raises OSError, HTTPException."""
    client = http.client.HTTPConnection("127.0.0.1", timeout=TIMEOUT)
    client.sock = connection
    try:
        client.request("GET", path, headers={"Connection": "close"})
        answer = client.getresponse()
        body = answer.read(LARGEST_ANSWER)
        if answer.status >= 400:
            raise OSError(f"HTTP {answer.status}: {body[:200].decode(errors='replace').strip()}")
        return body
    finally:
        client.close()
