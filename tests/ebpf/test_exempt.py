"""ztunnel dials from inside the pod's network namespace, and is not sent back to itself."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf import cgroups
from ebpf.node import Capture
from mesh.model import ports
from tests.ebpf.stage import V4, Stage, listen, told

pytestmark = pytest.mark.root

SO_MARK = 36


def relaying(stage: Stage, turns: int) -> Any:
    """A ztunnel that dials every captured connection's destination, from where it stands; `turns` bounds a loop."""

    def body() -> Iterator[Any]:
        capture = Capture.open(stage.pins)
        listener = listen(V4, "127.0.0.1", ports.OUTBOUND)
        yield "ready"
        captured = []
        for _ in range(turns):
            connection, _ = listener.accept()
            original = capture.original_destination(connection.fileno())
            captured.append(str(original))
            upstream = socket.socket()
            upstream.setblocking(False)
            upstream.connect_ex((original.ip, original.port))
            yield captured

    return body


def server(stage: Stage) -> Any:
    def body() -> Iterator[Any]:
        with listen(V4, stage.b.ip4, 8080) as listener:
            yield "ready"
            yield listener.accept()[1][0]

    return body


def dialling(host: str, port: int) -> Any:
    def body() -> Iterator[Any]:
        with socket.create_connection((host, port)) as connection:
            yield connection.getpeername()

    return body


def test_the_dial_of_ztunnel_reaches_the_destination(stage: Stage) -> None:
    app = stage.app(stage.b, server(stage))
    app.passed()
    ztunnel = stage.ztunnel(stage.a, relaying(stage, 1))
    ztunnel.passed()
    stage.capture.enrol(stage.a.cookie)
    stage.app(stage.a, dialling(stage.b.ip4, 8080)).report()
    assert ztunnel.report() == [f"{stage.b.ip4}:8080"]
    assert app.report() == stage.a.ip4


def test_without_the_exemption_it_would_come_back_for_ever(stage: Stage) -> None:
    ztunnel = stage.ztunnel(stage.a, relaying(stage, 5))
    ztunnel.passed()
    stage.capture.enrol(stage.a.cookie)
    group = cgroups.cgroup_id(stage.ztunnel_cgroup)
    stage.capture.unexempt(group)
    try:
        stage.app(stage.a, dialling(stage.b.ip4, 8080)).report()
        captured = [ztunnel.next() if turn else ztunnel.report() for turn in range(5)][-1]
        assert captured == [f"{stage.b.ip4}:8080"] * 5
    finally:
        stage.capture.exempt(group)


def test_an_app_cannot_claim_to_be_ztunnel_by_a_mark(stage: Stage) -> None:
    """With CAP_NET_RAW a pod may set any socket mark; its cgroup it cannot choose."""

    def marked() -> str:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, SO_MARK, 1337)
            connection.connect((stage.b.ip4, 8080))
            return told(connection)

    stage.capture.enrol(stage.a.cookie)
    with pytest.raises(ConnectionRefusedError):
        stage.app(stage.a, marked).report()


def test_exempted_lists_what_was_exempted(stage: Stage) -> None:
    assert stage.capture.exempted() == {cgroups.cgroup_id(stage.ztunnel_cgroup)}
