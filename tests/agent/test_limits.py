"""docs/limits.md is true: its bounds are those of the code, its metrics those of a running agent; and bounds hold."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebpf.netns import in_netns
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.workload import WorkloadUid
from tests.agent.node import Node, eventually
from ztunnel import channel
from ztunnel.agent import admin, metrics
from ztunnel.agent.inquiry import Inquiry
from ztunnel.agent.metrics import ConnectionMetrics
from ztunnel.agent.telemetry import NameBook
from ztunnel.channel import ChannelBroken, Decoder, WorkerChannel
from ztunnel.feed import Connection, Connections, DescribeConnections, Opened, Ready, ToAgent
from ztunnel.worker import arrivals, certificates, lingering
from ztunnel.worker.arrivals import Arrivals
from ztunnel.worker.certificates import Certificates
from ztunnel.worker.lingering import Lingering
from ztunnel.worker.loop import Loop

TABLE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
# A number, its unit in words, then where the code has it.
BOUNDS = re.findall(r"(\d[\d,]*)(?: \w+)*? \(`((?:ztunnel|mesh)\.[\w.]+)`", TABLE)
LAST_COLUMN = "".join(re.findall(r"\| ([^|]*) \|$", TABLE, re.MULTILINE))
METRICS = sorted(set(re.findall(r"`((?:ambit|istio|workload)_\w+(?:\{[^}]*\})?)`", LAST_COLUMN)))


def named(path: str) -> Any:
    """The value of a dotted name; fields of a class are those of its default."""
    words = path.split(".")
    for end in range(len(words) - 1, 0, -1):
        try:
            value: Any = importlib.import_module(".".join(words[:end]))
        except ModuleNotFoundError:
            continue
        for word in words[end:]:
            value = getattr(value() if isinstance(value, type) else value, word)
        return value
    raise LookupError(path)


def test_the_table_was_read() -> None:
    assert len(BOUNDS) > 30
    assert len(METRICS) > 30
    assert TABLE.count("(`ztunnel.") + TABLE.count("(`mesh.") == len(BOUNDS)
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert all(re.search("|".join(map(re.escape, METRICS)), row) for row in rows)


@pytest.mark.parametrize(("number", "path"), BOUNDS)
def test_each_bound_is_that_of_the_code(number: str, path: str) -> None:
    assert named(path) == int(number.replace(",", ""))


@pytest.mark.root
def test_each_metric_is_exported(node: Node) -> None:
    node.start()
    node.agent.start_with()
    node.control.stop()  # so that the stream's end is counted, too

    def missing() -> list[str]:
        text = node.metrics()
        return [name for name in METRICS if not re.search(rf"^{re.escape(name)}[ {{]", text, re.MULTILINE)]

    eventually(lambda: not missing(), f"metrics: {missing()}")


@pytest.mark.root
def test_who_holds_connections_does_not_shut_out_the_monitoring(node: Node) -> None:
    node.start()
    node.agent.start_with()
    with node.netns.open() as netns:
        idle = [
            in_netns(netns.fileno(), lambda: socket.create_connection(("127.0.0.1", ports.METRICS), timeout=20))
            for _ in range(admin.MOST_CONNECTIONS + 20)
        ]
    try:
        text = eventually(node.metrics, "the metrics")
        (cut,) = re.findall(r"^ambit_http_connections_cut_total (\S+)$", text, re.MULTILINE)
        assert float(cut) >= 20
        assert idle[0].recv(1) == b""
    except ConnectionResetError:
        pass  # an abort may be one
    finally:
        for sock in idle:
            sock.close()


# --- bounds of single parts

ADDRESS = SocketAddress(Ip("10.0.0.1"), 80)


def connection(name: str) -> Connection:
    identity = SpiffeId("cluster.local", "shop", name)
    return Connection("outbound", "TCP", WorkloadUid(name), ADDRESS, ADDRESS, source_identity=identity, sent=2)


def test_connections_of_too_many_ends_are_counted_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    counted, names = ConnectionMetrics(), NameBook(str)
    for number in range(10):
        one = connection(f"app{number}")
        known = names.of(one, MeshState())
        counted.opened(known)
        counted.live([(one, known)])
        counted.closed(one, known)
    counted.live([])
    found = {family.name: [sample for sample in family.samples] for family in counted.collect()}
    for name, total in (("opened", 10), ("closed", 10)):
        assert sum(one.value for one in found[f"istio_tcp_connections_{name}"]) == total
    assert sum(one.value for one in found["istio_tcp_received_bytes"]) == 20
    assert {len(samples) for samples in found.values()} == {4, 0}
    assert (counted.series, counted.unnamed) == (3, 7)


def test_who_asks_meanwhile_shares_the_answer() -> None:
    async def ask() -> tuple[int, int]:
        asked: list[DescribeConnections] = []
        inquiry = Inquiry(lambda question: asked.append(question) or 1)  # type: ignore[func-returns-value]
        waiting = [asyncio.create_task(inquiry.connections()) for _ in range(1000)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        inquiry.answered(Connections(asked[0].number, (), {"pods": 1}))
        answers = await asyncio.gather(*waiting)
        assert all(counters == {"pods": 1} for _, counters in answers)
        return len(asked), inquiry.incomplete

    assert asyncio.run(ask()) == (1, 0)


def test_an_unanswered_question_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.agent.inquiry.PATIENCE", 0.01)

    async def ask() -> int:
        inquiry = Inquiry(lambda question: 1)
        assert await inquiry.connections() == ([], {})
        return inquiry.incomplete

    assert asyncio.run(ask()) == 1


def test_who_cannot_wait_is_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST", 2)
    told: list[bool] = []
    waiting = Arrivals(Loop(), 5)
    for _ in range(3):
        waiting.wait("pod", told.append)
    assert (told, len(waiting), waiting.refused) == ([False], 2, 1)


def test_reasons_are_forgotten_and_certificates_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MOST_REASONS", 2)
    held = Certificates(lambda identity: None)
    identities = [SpiffeId("cluster.local", "shop", f"app{number}") for number in range(3)]
    for identity in identities:
        held.miss(identity, "gone")
    assert held.counters() == {"certificates": 0, "certificates_missing": 2}
    assert [held.known(identity) for identity in identities] == [False, True, True]


def test_ends_that_cannot_linger_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "MOST", 1)
    loop = Loop()
    ends = Lingering(loop)
    peers = []
    for _ in range(3):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop.watch(ours.fileno(), lambda event: None)
        ends.close(ours)
        peers.append(theirs)
    assert (len(ends), ends.skipped) == (1, 2)
    for peer in peers:
        peer.close()


def test_an_agent_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_UNSENT", 1 << 20)
    ours, theirs = socket.socketpair()
    worker = WorkerChannel(ours)

    def speak() -> None:
        for _ in range(10_000):
            worker.send(Ready((WorkloadUid("x" * 1000),)))
            worker.flush()

    with theirs, pytest.raises(ChannelBroken, match="does not read"):
        speak()
    worker.close()


def test_answers_that_are_left_out_are_no_lost_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_BACKLOG", -1)
    ours, theirs = socket.socketpair()
    worker = WorkerChannel(ours)
    one = connection("web")
    worker.send(Connections(1, (one,), {}))
    worker.send(Opened((one, one)))
    assert (worker.unsent, worker.dropped) == (0, 2)
    worker.close()
    theirs.close()


def test_descriptors_without_messages_are_bounded() -> None:
    decoder = Decoder(msgspec.msgpack.Decoder(ToAgent))
    files = [os.memfd_create("spare") for _ in range(channel.MAX_DESCRIPTORS + 1)]
    with pytest.raises(ChannelBroken, match="without their messages"):
        list(decoder.feed(b"", files))
    decoder.close()
