"""A worker's own life: agents that go, pods that leave, draining, running out of descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket

import pytest

from tests.worker.hbone_client import HboneClient, tls_socket
from tests.worker.node import PATIENCE, Node, echo, read_all, serving
from ztunnel.feed import Drain, Misunderstood, PodRemoved

pytestmark = pytest.mark.root

PORT = 8080


def talk(app: socket.socket) -> bool:
    """Whether the connection stands and the echo answers."""
    app.sendall(b"x")
    return app.recv(1) == b"x"


def test_connections_go_on_and_new_ones_come_when_the_agent_has_gone(node: Node) -> None:
    workers = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    before = node.a.dial(node.b.address(PORT))
    assert talk(before)
    for worker in workers:
        worker.leave()
        worker.wait(lambda worker=worker: worker.gone, "the feed to end")  # type: ignore[misc]
    after = node.a.dial(node.b.address(PORT))
    assert talk(before)
    assert talk(after)
    assert [worker.process.poll() for worker in workers] == [None, None]


def test_a_worker_says_what_it_does_not_understand_and_goes_on(node: Node) -> None:
    workers = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    for worker in workers:
        worker.tell_nonsense()
        worker.wait(lambda worker=worker: worker.gone, "the feed to end")  # type: ignore[misc]
        last = worker.messages[-1]
        assert isinstance(last, Misunderstood)
        assert "not a message" in last.reason
    assert talk(node.a.dial(node.b.address(PORT)))


def test_draining_lets_connections_end_and_takes_no_new_ones(node: Node) -> None:
    client, server = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    app = node.a.dial(node.b.address(PORT))
    assert talk(app)
    client.tell(Drain(PATIENCE))
    client.wait(lambda: client.messages[-1].__class__.__name__ == "Ready" and not client.messages[-1].pods, "draining")  # type: ignore[union-attr]
    with pytest.raises(ConnectionRefusedError):
        node.a.dial(node.b.address(PORT))
    assert talk(app)
    app.close()
    assert client.process.wait(PATIENCE) == 0
    assert server.ended().error == ""
    assert client.closed[0].error == ""


def test_draining_a_server_says_goaway_and_ends_at_the_deadline(node: Node) -> None:
    server = node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    client = HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    assert client.status(stream) == 200
    server.tell(Drain(0.3))
    goaway = client.wait_for_goaway()
    assert goaway.error_code == 0
    client.wait_for_close()
    assert server.process.wait(PATIENCE) == 0
    assert "ended" in server.closed[-1].error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(node: Node, number: signal.Signals) -> None:
    worker = node.worker(node.a, CONNECTION_TERMINATION_DEADLINE="20s")
    worker.process.send_signal(number)
    assert worker.process.wait(PATIENCE) == 0
    with pytest.raises(ConnectionRefusedError):
        node.a.dial(node.b.address(PORT))


def test_a_pod_that_leaves_is_reached_by_tunnels_for_a_while(node: Node) -> None:
    server = node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    early = HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))
    standing = early.connect(f"{node.b.ip4}:{PORT}")
    assert early.status(standing) == 200
    server.tell(PodRemoved(node.b.uid, 0.5))
    server.describe()
    with node.b.socket() as app, pytest.raises(ConnectionRefusedError):
        app.connect(("127.0.0.1", 15001))
    late = HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))
    assert late.status(late.connect(f"{node.b.ip4}:{PORT}")) == 200
    assert early.wait_for_goaway().error_code == 0
    early.send(standing, b"on and on")
    assert early.received(standing, 9) == b"on and on"
    with pytest.raises(ConnectionRefusedError):
        tls_socket(node.a, node.b, node.certificate(node.a.identity))


def test_a_pod_that_comes_again_is_served_again(node: Node) -> None:
    client, server = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    for worker, pod in ((client, node.a), (server, node.b)):
        worker.tell(PodRemoved(pod.uid, 5))
        worker.describe()
        worker.serve(pod)
    app = node.a.dial(node.b.address(PORT))
    assert talk(app)
    app.close()


def test_descriptors_of_pods_do_not_pile_up(node: Node) -> None:
    worker = node.worker(node.a)

    def descriptors() -> int:
        worker.describe()
        return len(os.listdir(f"/proc/{worker.process.pid}/fd"))

    before = descriptors()
    for _ in range(20):
        worker.tell(PodRemoved(node.a.uid, 0))
        worker.describe()
        worker.serve(node.a)
    assert descriptors() == before


def test_running_out_of_descriptors_is_survived(node: Node) -> None:
    """With 64 descriptors not all of 100 connections can stand; those that end make room for others."""
    client, server = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    first = node.a.dial(node.b.address(PORT))
    assert talk(first)
    resource.prlimit(client.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    apps = []
    for _ in range(100):
        with contextlib.suppress(ConnectionResetError):  # one is told so at once, each time
            apps.append(node.a.dial(node.b.address(PORT)))
    client.wait(lambda: client.describe().counters["accept_pauses"] > 0, "accepting to pause")
    assert talk(first)
    for app in apps:
        app.close()
    with node.a.dial(node.b.address(PORT)) as app:
        assert talk(app)
    assert talk(first)
    assert server.process.poll() is None


def test_a_worker_says_in_one_sentence_why_it_does_not_start(node: Node) -> None:
    import subprocess
    import sys

    def start(**environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ztunnel.worker", "--feed", "0"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    assert "AMBIT_BPF_PINS" in start(AMBIT_BPF_PINS="")
    assert "/sys/fs/bpf/nowhere" in start(AMBIT_BPF_PINS="/sys/fs/bpf/nowhere")
    assert "AMBIT_CONNECT_TIMEOUT" in start(AMBIT_CONNECT_TIMEOUT="soon")


def test_half_of_a_conversation_survives_the_other_workers_drain(node: Node) -> None:
    """A client's worker that drains keeps what stands until it ends, bytes and half-close included."""
    client, _ = node.worker(node.a), node.worker(node.b)
    serving(node.b.listen(PORT), echo)
    app = node.a.dial(node.b.address(PORT))
    assert talk(app)
    client.tell(Drain(PATIENCE))
    app.sendall(b"last words")
    app.shutdown(socket.SHUT_WR)
    assert read_all(app) == b"last words"
    assert client.process.wait(PATIENCE) == 0
