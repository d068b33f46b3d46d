"""Loading again while clients dial: every connection goes to ztunnel, none is lost, none slips past."""

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf.node import Capture
from mesh.model import ports
from tests.ebpf.stage import V4, V6, Stage, listen, load, outbound_ztunnel, told

pytestmark = pytest.mark.root


def server(stage: Stage, port: int, word: str, steer: bool = False) -> Any:
    """Says its word to whoever reaches it, at pod `b`."""

    def body() -> Iterator[Any]:
        with listen(V6, "::", port) as listener:
            if steer:
                capture = Capture.open(stage.pins)
                for family in (V4, V6):
                    capture.steer_inbound(stage.b.ip(family), listener.fileno())
            yield "ready"
            while True:
                connection, _ = listener.accept()
                connection.sendall(word.encode())
                connection.close()

    return body


def dialling(stage: Stage, family: int, stop: int) -> Any:
    """Dials without pause until told to stop; returns how often, and all different answers."""

    def body() -> Iterator[Any]:
        yield "ready"
        number, heard = 0, set()
        while not select.select([stop], [], [], 0)[0]:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                try:
                    connection.connect((stage.b.ip(family), 8080))
                    heard.add(told(connection))
                except OSError as problem:
                    heard.add(repr(problem))
            number += 1
        yield number, heard

    return body


def answers_while_loading(stage: Stage) -> dict[int, set[str]]:
    """What clients in `a` hear, by family, while the loader runs twice."""
    stop, end = os.pipe()
    try:
        clients = {family: stage.app(stage.a, dialling(stage, family, stop)) for family in (V4, V6)}
        for client in clients.values():
            client.passed()
        for _ in range(2):
            load(stage.pins, stage.cgroup)
        os.write(end, b"x")
        reports = {family: client.report() for family, client in clients.items()}
    finally:
        os.close(stop)
        os.close(end)
    assert all(number > 100 for number, _ in reports.values())
    return {family: heard for family, (_, heard) in reports.items()}


def test_outbound(stage: Stage) -> None:
    stage.app(stage.b, server(stage, 8080, "leaked")).passed()
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie)
    heard = answers_while_loading(stage)
    assert heard == {V4: {f"15001 {stage.b.ip4}:8080"}, V6: {f"15001 [{stage.b.ip6}]:8080"}}


def test_inbound(stage: Stage) -> None:
    stage.app(stage.b, server(stage, 8080, "leaked")).passed()
    stage.ztunnel(stage.b, server(stage, ports.INBOUND_PLAINTEXT, "ztunnel", steer=True)).passed()
    netns = os.open(stage.b.netns, os.O_RDONLY)
    stage.capture.attach_inbound(netns, "pod")
    os.close(netns)
    assert answers_while_loading(stage) == {V4: {"ztunnel"}, V6: {"ztunnel"}}


def test_connections_that_stand_go_on(stage: Stage) -> None:
    """Before enrolment, through it, through a swap of programs, and after withdrawal."""

    def echo() -> Iterator[Any]:
        with listen(V4, stage.b.ip4, 8080) as listener:
            yield "ready"
            connection, _ = listener.accept()
            while data := connection.recv(100):
                connection.sendall(data)

    def client() -> Iterator[Any]:
        with socket.create_connection((stage.b.ip4, 8080)) as connection:
            while True:
                connection.sendall(b"still here")
                yield connection.recv(100), connection.getpeername()

    stage.app(stage.b, echo).passed()
    talker = stage.app(stage.a, client)
    expected = (b"still here", (stage.b.ip4, 8080))
    assert talker.report() == expected
    stage.capture.enrol(stage.a.cookie)
    assert talker.next() == expected
    load(stage.pins, stage.cgroup)
    assert talker.next() == expected
    stage.capture.withdraw(stage.a.cookie)
    assert talker.next() == expected
