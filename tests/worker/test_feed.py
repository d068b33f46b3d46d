"""Whatever the mesh may hold, a worker reads it as the agent has sent it, also where its code is compiled."""

from __future__ import annotations

import socket

from hypothesis import given

from mesh.model.policy import Authorization
from mesh.model.update import MeshUpdate
from mesh.model.workload import Service, Workload
from tests.wire import values
from ztunnel.channel import AgentChannel, WorkerChannel
from ztunnel.feed import Mesh


@given(values.few(values.workloads), values.few(values.services), values.few(values.policies))
def test_a_mesh_arrives_as_it_is(
    workloads: tuple[Workload, ...], services: tuple[Service, ...], policies: tuple[Authorization, ...]
) -> None:
    sent = MeshUpdate(workloads=workloads, services=services, policies=policies)
    ours, theirs = socket.socketpair()
    agent, worker = AgentChannel(ours), WorkerChannel(theirs)
    agent.outbox.put(Mesh(sent))
    assert agent.flush()
    assert [message for message, _ in worker.receive()] == [Mesh(sent)]
    agent.close()
    worker.close()
