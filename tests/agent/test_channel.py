"""The socket between agent and worker: what one side sends is what the other gets, with its descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.update import MeshUpdate
from mesh.model.workload import Service, ServiceKey, Workload, WorkloadUid
from ztunnel import channel
from ztunnel.channel import AgentChannel, ChannelBroken, Decoder, WorkerChannel, encode
from ztunnel.feed import (
    Certificate,
    CertificateMissing,
    Closed,
    Connection,
    DescribeConnections,
    Mesh,
    PodAdded,
    PodRemoved,
    Ready,
    SocketRole,
    ToAgent,
    ToWorker,
)
from ztunnel.outbox import MAX_QUESTIONS, Outbox, merged

WEB = WorkloadUid("Kubernetes//Pod/shop/web")
POD = PodAdded(WEB, "web", "shop", "web", 7, (Ip("10.0.0.1"),), (SocketRole.OUTBOUND, SocketRole.HBONE))
IDENTITY = SpiffeId("cluster.local", "shop", "web")


@pytest.fixture
def ends() -> Iterator[tuple[AgentChannel, WorkerChannel]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    agent, worker = AgentChannel(ours), WorkerChannel(theirs)
    yield agent, worker
    agent.close()
    worker.close()


def workload(name: str, **fields: object) -> Workload:
    return Workload(uid=WorkloadUid(name), name=name, namespace="shop", **fields)  # type: ignore[arg-type]


def record(size: int = 0) -> Connection:
    address = SocketAddress(Ip("10.0.0.1"), 80)
    return Connection("outbound", "TCP", WEB, address, address, error="x" * size)


def test_messages_arrive_with_their_own_descriptors(ends: tuple[AgentChannel, WorkerChannel]) -> None:
    agent, worker = ends
    files = [os.memfd_create(name) for name in ("netns", "outbound", "hbone")]
    agent.outbox.put(Mesh(MeshUpdate(workloads=(workload("a"),), replace=True)))
    agent.outbox.put(POD, tuple(files))
    agent.outbox.put(DescribeConnections(1))
    assert agent.flush()
    got = list(worker.receive())
    assert [type(message) for message, _ in got] == [Mesh, PodAdded, DescribeConnections]
    assert [len(descriptors) for _, descriptors in got] == [0, 3, 0]
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in got[1][1]]
    assert [name.split(":")[1].split(" ")[0] for name in names] == ["netns", "outbound", "hbone"]
    assert all(not os.get_inheritable(fd) for fd in got[1][1])
    for fd in (*files, *got[1][1]):
        os.close(fd)


def test_a_whole_mesh_crosses_a_small_socket(ends: tuple[AgentChannel, WorkerChannel]) -> None:
    agent, worker = ends
    update = MeshUpdate(workloads=tuple(workload(f"w{number}") for number in range(5000)))
    agent.outbox.put(Mesh(update))
    got: list[object] = []
    while not agent.flush():
        got += [message for message, _ in worker.receive()]
    got += [message for message, _ in worker.receive()]
    assert got == [Mesh(update)]


def test_a_worker_that_does_not_read_costs_at_most_the_state(ends: tuple[AgentChannel, WorkerChannel]) -> None:
    agent, worker = ends
    for number in range(20_000):
        agent.outbox.put(Mesh(MeshUpdate(workloads=(workload(f"w{number % 10}", node=f"node{number}"),))))
        agent.outbox.put(Certificate(IDENTITY, b"chain", b"key" * 100, str(number).encode()))
        agent.flush()
    assert len(agent.outbox) <= 2
    seen: dict[str, str] = {}
    certificate = b""
    done = False
    while not done:
        done = agent.flush()
        for message, _ in worker.receive():
            if isinstance(message, Mesh):
                seen |= {one.uid: one.node for one in message.update.workloads}
            elif isinstance(message, Certificate):
                certificate = message.roots
    assert seen == {f"w{number % 10}": f"node{number}" for number in range(19_990, 20_000)}
    assert certificate == b"19999"


def test_an_agent_that_does_not_read_costs_records_not_memory(ends: tuple[AgentChannel, WorkerChannel]) -> None:
    agent, worker = ends
    for _ in range(4000):
        worker.send(Closed((record(4000),)))
        worker.flush()
    worker.send(Ready((WEB,)))
    assert worker.dropped > 0
    got: list[object] = []
    while not worker.flush():
        got += [message for message, _ in agent.receive()]
    got += [message for message, _ in agent.receive()]
    assert got[-1] == Ready((WEB,))
    assert len(got) == 4000 - worker.dropped + 1


def test_a_peer_that_went_is_an_error(ends: tuple[AgentChannel, WorkerChannel]) -> None:
    agent, worker = ends
    worker.close()
    with pytest.raises(ChannelBroken):
        list(agent.receive())
    agent.outbox.put(DescribeConnections(1))
    with pytest.raises(ChannelBroken):
        agent.flush()


def test_a_message_beyond_the_bound_is_refused_before_it_is_stored() -> None:
    decoder = Decoder(msgspec.msgpack.Decoder(ToAgent))
    with pytest.raises(ChannelBroken, match="announced"):
        list(decoder.feed((channel.MAX_MESSAGE + 1).to_bytes(4, "big")))


def test_descriptors_that_are_missing_are_an_error_and_spare_ones_are_closed() -> None:
    decoder = Decoder(msgspec.msgpack.Decoder(ToWorker))
    with pytest.raises(ChannelBroken, match="needs 3 descriptors, 0 came"):
        list(decoder.feed(encode(POD)))
    spare = os.memfd_create("spare")
    decoder = Decoder(msgspec.msgpack.Decoder(ToWorker))
    assert list(decoder.feed(b"", [spare])) == []
    decoder.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spare)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_do_anything_but_raise(data: bytes) -> None:
    decoder = Decoder(msgspec.msgpack.Decoder(ToAgent))
    try:
        list(decoder.feed(len(data).to_bytes(4, "big") + data))
    except ChannelBroken:
        pass


@given(st.lists(st.integers(1, 50), min_size=1))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    messages = [Ready((WEB,)), Closed((record(100),)), Ready(())]
    stream = b"".join(encode(message) for message in messages)
    decoder = Decoder(msgspec.msgpack.Decoder(ToAgent))
    got: list[object] = []
    for cut in (*cuts, len(stream)):
        piece, stream = stream[:cut], stream[cut:]
        got += [message for message, _ in decoder.feed(piece)]
    assert got == messages


def test_a_pod_that_came_and_went_unseen_is_not_mentioned() -> None:
    outbox = Outbox()
    outbox.put(POD, (1, 2, 3))
    outbox.put(PodRemoved(WEB, 5))
    assert outbox.head() is None


def test_a_pod_that_is_replaced_goes_before_it_comes() -> None:
    outbox = Outbox()
    outbox.put(PodRemoved(WEB, 0))
    outbox.put(POD, (1, 2, 3))
    outbox.put(PodRemoved(WEB, 5))
    assert outbox.head() == (PodRemoved(WEB, 0), ())
    outbox.put(POD, (4, 5, 6))
    outbox.take()
    assert outbox.head() == (POD, (4, 5, 6))


def test_the_last_word_on_an_identity_wins() -> None:
    outbox = Outbox()
    outbox.put(Certificate(IDENTITY, b"", b"", b""))
    outbox.put(CertificateMissing(IDENTITY, "gone"))
    assert outbox.head() == (CertificateMissing(IDENTITY, "gone"), ())
    assert len(outbox) == 1


def test_questions_are_bounded() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.put(DescribeConnections(number))
    assert len(outbox) == MAX_QUESTIONS


names = st.sampled_from(["a", "b", "c"])
updates = st.builds(
    lambda upserts, removed, replace: MeshUpdate(
        workloads=tuple(workload(name, node=node) for name, node in upserts.items()),
        services=tuple(Service(name, "shop", f"{name}.shop") for name in upserts),
        removed_workloads=tuple(WorkloadUid(name) for name in removed if name not in upserts),
        removed_services=tuple(ServiceKey(f"shop/{name}.shop") for name in removed if name not in upserts),
        replace=replace,
    ),
    st.dictionaries(names, st.text("xyz", max_size=2)),
    st.sets(names),
    st.booleans(),
)


def applied(state: dict[str, object], update: MeshUpdate) -> dict[str, object]:
    state = {} if update.replace else dict(state)
    for key in (*update.removed_workloads, *update.removed_services):
        state.pop(key, None)
    for one in update.workloads:
        state[one.uid] = one.node
    for service in update.services:
        state[service.key] = service
    return state


@given(st.lists(updates, min_size=1), updates)
def test_merging_is_applying_in_turn(steps: list[MeshUpdate], start: MeshUpdate) -> None:
    state = one_by_one = applied({}, start)
    total = steps[0]
    for step in steps[1:]:
        total = merged(total, step)
    for step in steps:
        one_by_one = applied(one_by_one, step)
    assert applied(state, total) == one_by_one
