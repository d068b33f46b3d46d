"""What is asked of one pod through the API server: an HTTP answer by port-forward, the output of a command by exec.

Port-forward reaches the pod's loopback, where admin servers listen; the API server's pod proxy would not.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Sequence

import websocket
from kubernetes.client import ApiException, CoreV1Api
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDOUT_CHANNEL, PortForward, WSClient

from cli.home import TIMEOUT, NoAnswer, http_get
from cli.kubernetes.access import Access
from cli.kubernetes.parts import Pod

REFUSED = "connection refused"
FORWARDER = "Kubernetes port forward proxy"  # the package's name for its threads


def http_answer(access: Access, pod: Pod, port: int, path: str) -> bytes:
    """GET from a loopback port of a pod. Raises NoAnswer, CommandFailed."""
    forward = _forward(access, pod, port)
    try:
        connection = forward.socket(port)
        connection.settimeout(TIMEOUT)
        return http_get(connection, path)
    except (OSError, http.client.HTTPException) as problem:
        # The kubelet tells on a channel of its own why it cannot forward; what we see is a connection that ends.
        raise NoAnswer(_kubelet_words(forward.error(port)) or str(problem)) from None
    finally:
        forward.close()


def output(access: Access, pod: Pod, container: str, command: Sequence[str]) -> str:
    """What a command prints in a container. Raises NoAnswer with its last words when it fails, CommandFailed."""
    run = _exec(access, pod, container, command)
    try:
        run.run_forever(timeout=2 * TIMEOUT)
        if run.is_open():
            raise NoAnswer(f"{command[-1]} has not ended within {2 * TIMEOUT:.0f} s")
        printed, complaint, end = (run.read_channel(each) for each in (STDOUT_CHANNEL, STDERR_CHANNEL, ERROR_CHANNEL))
    except (OSError, websocket.WebSocketException) as problem:
        raise NoAnswer(str(problem)) from None
    finally:
        run.close()
    failure = _failure(end)
    if failure:
        raise NoAnswer(complaint.strip().rpartition("\n")[2] or failure)
    return str(printed)


def _forward(access: Access, pod: Pod, port: int) -> PortForward:
    _prepare()
    api = CoreV1Api(access.client())
    try:
        return portforward(api.connect_get_namespaced_pod_portforward, pod.name, pod.namespace, ports=str(port))
    except ApiException as problem:
        raise access.refusal(f"port-forward to pods of namespace {pod.namespace}", problem) from None


def _exec(access: Access, pod: Pod, container: str, command: Sequence[str]) -> WSClient:
    _prepare()
    api = CoreV1Api(access.client())
    try:
        return stream(
            api.connect_get_namespaced_pod_exec,
            pod.name,
            pod.namespace,
            container=container,
            command=list(command),
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
    except ApiException as problem:
        raise access.refusal(f"run commands in pods of namespace {pod.namespace}", problem) from None


def _prepare() -> None:
    """The package passes no time-out on to its web sockets, and lets its forwarding threads die with a traceback."""
    websocket.setdefaulttimeout(TIMEOUT)
    if threading.excepthook is not _quiet:
        threading.excepthook = _quiet


def _quiet(arguments: threading.ExceptHookArgs) -> None:
    """A forwarder's end is seen at its socket."""
    if arguments.thread is None or not arguments.thread.name.startswith(FORWARDER):
        threading.__excepthook__(arguments)


def _kubelet_words(error: str | None) -> str:
    """Of "error forwarding port ...: dial tcp4 127.0.0.1:15000: connect: connection refused IPv6 ..." what tells."""
    text = (error or "").strip()
    return REFUSED if REFUSED in text else text


def _failure(end: str) -> str:
    """Of the Status object that ends an exec; a connection that ends without one is a failure too."""
    try:
        status = json.loads(end)
    except ValueError:
        return "the connection ended before the command did"
    return "" if status.get("status") == "Success" else str(status.get("message", "it failed"))
