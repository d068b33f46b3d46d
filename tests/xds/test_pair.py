"""Our client against our server, whatever happens in whatever order: in the end the client has what is published."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.model.update import MeshUpdate
from mesh.model.workload import Workload
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE
from mesh.xds.client import ClientSession, ztunnel_node
from mesh.xds.server import ServerSession
from tests.xds.values import collections, put, workload

NAMES = st.sampled_from("abcdef")


class Streams(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.published = collections()
        self.truth: dict[str, Workload] = {}
        self.held: dict[str, Workload] = {}
        self.client = ClientSession(ztunnel_node("n", "p", "ns", "1.1.1.1"))
        self.reconnect()

    @rule()
    def reconnect(self) -> None:
        """The stream breaks; what was under way is lost."""
        self.server = ServerSession(self.published, max_bytes=100)
        self.to_client: list[DeltaDiscoveryResponse] = []
        self.to_server: list[DeltaDiscoveryRequest] = self.client.connect()

    @rule()
    def restart_client(self) -> None:
        """It comes back with what it had, and remembers no versions."""
        held = MeshUpdate(workloads=tuple(self.held.values()))
        self.client = ClientSession(ztunnel_node("n", "p", "ns", "1.1.1.1"), held)
        self.reconnect()

    @rule(name=NAMES, last=st.integers(0, 3))
    def publish(self, name: str, last: int) -> None:
        pod = workload(name, f"10.0.0.{last}")
        self.truth[pod.uid] = pod
        self.server.changed(ADDRESS_TYPE, put(self.published[ADDRESS_TYPE], pod))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        uid = workload(name).uid
        self.truth.pop(uid, None)
        self.server.changed(ADDRESS_TYPE, self.published[ADDRESS_TYPE].apply((), (uid,)))

    @rule()
    def server_reads(self) -> None:
        if self.to_server:
            self.server.requested(self.to_server.pop(0))

    @rule()
    def server_writes(self) -> None:
        response = self.server.next_response()
        if response is not None:
            self.to_client.append(response)

    @rule()
    def client_reads(self) -> None:
        if self.to_client:
            received = self.client.received(self.to_client.pop(0))
            for uid in received.update.removed_workloads:
                self.held.pop(uid, None)
            self.held.update({pod.uid: pod for pod in received.update.workloads})
            self.to_server.append(received.reply)

    @invariant()
    def one_response_of_a_type_at_a_time(self) -> None:
        types = [response.type_url for response in self.to_client]
        assert len(types) == len(set(types))

    def teardown(self) -> None:
        for _ in range(100):
            self.server_reads()
            self.server_writes()
            self.client_reads()
        assert self.held == self.truth
        assert self.client.ready


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
