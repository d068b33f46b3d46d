"""Calls the plugin as a runtime does, and plays the agent at the other end of its socket."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1"
RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/var/run/netns/pod"}],
    "ips": [
        {"address": "10.9.0.7/24", "gateway": "10.9.0.1", "interface": 0},
        {"address": "fd00::7/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.9.0.1"]},
    "of another plugin": {"é \U0001f600": [1.0, 1e3, None, True, "\\u0041/"]},
}


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> dict[str, Any]:
        assert self.code == 1, self
        error: dict[str, Any] = json.loads(self.stdout)
        assert set(error) == {"cniVersion", "code", "msg"}
        return error


@dataclass
class Plugin:
    binary: Path
    socket: Path
    enrolled: Path
    settings: dict[str, Any] = field(default_factory=lambda: {"retrySeconds": 0, "timeoutSeconds": 20})

    def netconf(self, **members: Any) -> dict[str, Any]:
        """A member that is None is left out."""
        whole = {
            "cniVersion": "1.0.0",
            "name": "cluster",
            "type": "ambit-cni",
            "agentSocket": str(self.socket),
            "enrolledNamespaces": str(self.enrolled),
            "prevResult": RESULT,
            **self.settings,
            **members,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def start(self, command: str, text: str | bytes | None = None, **environment: str) -> subprocess.Popen[bytes]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c0ffee",
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": POD,
            **environment,
        }
        environment = {name: value for name, value in environment.items() if value}
        pipe = subprocess.PIPE
        process = subprocess.Popen([self.binary], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        text = json.dumps(self.netconf()) if text is None else text
        assert process.stdin is not None
        try:
            process.stdin.write(text.encode() if isinstance(text, str) else text)
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        return process

    def call(self, command: str, text: str | bytes | None = None, **environment: str) -> Outcome:
        return finish(self.start(command, text, **environment))

    def enrol(self, *namespaces: str) -> None:
        self.enrolled.write_text("".join(name + "\n" for name in namespaces))


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(process.returncode, stdout.decode(), stderr.decode())


Behaviour = Callable[[socket.socket], None]


@contextmanager
def agent(path: Path, *behaviours: Behaviour) -> Iterator[list[dict[str, Any]]]:
    """One behaviour per connection, the last one for all that follow. Gives the requests."""
    requests: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, list(behaviours), requests), daemon=True)
        thread.start()
        try:
            yield requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, behaviours: list[Behaviour], requests: list[dict[str, Any]]) -> None:
    while True:
        try:
            stream, _ = listener.accept()
        except OSError:
            return
        with stream:
            if message := stream.recv(1 << 16):
                requests.append(json.loads(message))
            try:
                (behaviours.pop(0) if len(behaviours) > 1 else behaviours[0])(stream)
            except OSError:
                pass


def says(answer: Any) -> Behaviour:
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return lambda stream: stream.sendall(data)


def hangs_up(stream: socket.socket) -> None:
    """Ends the connection without an answer."""


def says_nothing(stream: socket.socket) -> None:
    stream.recv(1)  # until the plugin gives up


ALLOWS = says({"ok": True})
