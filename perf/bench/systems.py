"""The systems under test: from where the load is sent, whereto, and which processes carry it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.namespaces import inside
from perf.bench import envoy, haproxy
from perf.bench.cases import Name
from perf.bench.certificates import issue
from perf.bench.place import Place, stop
from perf.bench.testbed import APP, CLIENT_NODE, LOAD, OUTSIDE_APP, SERVER_NODE, Testbed, until

PORTS = (OUTSIDE_APP, OUTSIDE_APP + 1, OUTSIDE_APP + 2)  # echo, sink, source
ENVOY, HAPROXY = 11000, 12000  # where the load finds the client's side
ENVOY_TUNNEL, HAPROXY_TUNNEL = 11008, 12008  # where the client's side finds the server's

Pids = Callable[[], frozenset[int]]


def _nobody() -> frozenset[int]:
    return frozenset()


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class System:
    """`host`:`port` echoes; sink and source are behind it."""

    name: Name
    client: Place
    host: str
    port: int
    client_side: Pids = _nobody
    server_side: Pids = _nobody
    restart: Callable[[], None] = _nothing

    def proxies(self) -> frozenset[int]:
        return self.client_side() | self.server_side()


def _beside_pods(place: Place) -> Place:
    """The cgroup that a node's ztunnel would have."""
    return replace(place, cgroup=place.cgroup.parents[2] / "system")


class Proxy:
    """One process that listens, and can be started anew."""

    def __init__(self, place: Place, command: list[str], listens: tuple[str, int], log: Path) -> None:
        self._place, self._command, self._listens, self._log = place, command, listens, log
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns once it listens. Raises LocalError, with what it said last."""
        with self._log.open("w") as log:
            # A session of its own, as pods and ztunnels have: the scheduler groups processes by session.
            options = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, "start_new_session": True}
            self._process = self._place.start(self._command, **options)
        until(self._is_listening, f"{self._command[0]} ({self._log.name})")

    def end(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None

    def restart(self) -> None:
        self.end()
        self.start()

    def pids(self) -> frozenset[int]:
        return frozenset({self._process.pid}) if self._process else frozenset()

    def _is_listening(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise LocalError(f"{self._command[0]} ended: {self._log.read_text().strip()[-500:]}")
        try:
            inside(self._place.netns, lambda: socket.create_connection(self._listens, 1)).close()
        except OSError:
            return False
        return True


@contextmanager
def running(bed: Testbed, wanted: Iterable[Name]) -> Iterator[dict[Name, System]]:
    """The systems that are `wanted`, all at once: those that are not measured have nothing to do. Raises LocalError."""
    with ExitStack() as stack:
        listens = (bed.outside.server.ip, OUTSIDE_APP)
        app = Proxy(bed.outside.server, [str(LOAD), "serve", str(OUTSIDE_APP)], listens, bed.files / "app.log")
        stack.callback(app.end)
        app.start()
        makers = {Name.ENVOY: _envoy, Name.HAPROXY: _haproxy}
        systems = {Name.DIRECT: _direct(bed), Name.UNENROLLED: _unenrolled(bed), Name.AMBIT: _ambit(bed)}
        for name in makers.keys() & set(wanted):
            pair = makers[name](bed)
            for proxy in pair:
                stack.callback(proxy.end)
                proxy.start()
            systems[name] = _pair(bed, name, *pair)
        yield systems


def _direct(bed: Testbed) -> System:
    return System(Name.DIRECT, bed.outside.client, bed.outside.server.ip, OUTSIDE_APP)


def _unenrolled(bed: Testbed) -> System:
    return System(Name.UNENROLLED, bed.plain.client, bed.plain.server.ip, APP)


def _ambit(bed: Testbed) -> System:
    def client_side() -> frozenset[int]:
        return bed.proxies(CLIENT_NODE)

    def server_side() -> frozenset[int]:
        return bed.proxies(SERVER_NODE)

    place = bed.mesh.client
    return System(Name.AMBIT, place, bed.mesh.server.ip, APP, client_side, server_side, bed.restart_ztunnels)


def _pair(bed: Testbed, name: Name, server: Proxy, client: Proxy) -> System:
    def restart() -> None:
        server.restart()
        client.restart()

    port = ENVOY if name is Name.ENVOY else HAPROXY
    return System(name, bed.outside.client, "127.0.0.1", port, client.pids, server.pids, restart)


def _envoy(bed: Testbed) -> tuple[Proxy, Proxy]:
    files, place = bed.files, bed.outside
    tunnel = (place.server.ip, ENVOY_TUNNEL)
    envoy.server(files / "envoy-server.json", issue(files, "server"), tunnel, PORTS)
    envoy.client(files / "envoy-client.json", issue(files, "client"), ENVOY, PORTS, tunnel)
    return (
        Proxy(
            _beside_pods(place.server), envoy.command(files / "envoy-server.json"), tunnel, files / "envoy-server.log"
        ),
        Proxy(
            _beside_pods(place.client),
            envoy.command(files / "envoy-client.json"),
            ("127.0.0.1", ENVOY),
            files / "envoy-client.log",
        ),
    )


def _haproxy(bed: Testbed) -> tuple[Proxy, Proxy]:
    files, place = bed.files, bed.outside
    tunnel = (place.server.ip, HAPROXY_TUNNEL)
    haproxy.server(files / "haproxy-server.cfg", issue(files, "server"), tunnel, PORTS)
    haproxy.client(files / "haproxy-client.cfg", issue(files, "client"), HAPROXY, len(PORTS), tunnel)
    return (
        Proxy(
            _beside_pods(place.server),
            haproxy.command(files / "haproxy-server.cfg"),
            tunnel,
            files / "haproxy-server.log",
        ),
        Proxy(
            _beside_pods(place.client),
            haproxy.command(files / "haproxy-client.cfg"),
            ("127.0.0.1", HAPROXY),
            files / "haproxy-client.log",
        ),
    )
