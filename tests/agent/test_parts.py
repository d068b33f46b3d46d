"""Decisions of the agent that need no process: the node agent's protocol, labels, counters, what is known when."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import Locality, Service, Workload, WorkloadUid
from mesh.runtime.style import Style
from mesh.wire.generated import zds_pb2
from ztunnel.agent import zds
from ztunnel.agent.access_log import AccessLog
from ztunnel.agent.mesh_feed import MeshFeed
from ztunnel.agent.metrics import ConnectionMetrics
from ztunnel.agent.process import ProcessId, Roster, identify
from ztunnel.agent.telemetry import LABELS, NameBook, ends, labels
from ztunnel.feed import Connection

WEB = Workload(
    WorkloadUid("Kubernetes//Pod/shop/web"),
    "web",
    "shop",
    (Ip("10.0.0.1"),),
    workload_name="web-deployment",
    canonical_name="web",
    canonical_revision="v2",
    locality=Locality("eu", "eu-1"),
)
DB = Workload(WorkloadUid("Kubernetes//Pod/data/db"), "db", "data", (Ip("10.0.0.2"),))
SERVICE = Service("db", "data", "db.data.svc.cluster.local")
STATE = MeshState(MeshUpdate(workloads=(WEB, DB), services=(SERVICE,)))
OUTBOUND = Connection(
    "outbound",
    "HBONE",
    WEB.uid,
    SocketAddress(Ip("10.0.0.1"), 40000),
    SocketAddress(Ip("10.96.0.2"), 80),
    actual=SocketAddress(Ip("10.0.0.2"), 15008),
    source_identity=SpiffeId("cluster.local", "shop", "web"),
    destination_identity=SpiffeId("cluster.local", "data", "db"),
    destination_service="db.data.svc.cluster.local",
    peer_workload=DB.uid,
    sent=11,
    received=22,
    started=100.0,
    ended=100.25,
)


def named(connection: Connection, flags: str = "-") -> dict[str, str]:
    return dict(zip(LABELS, labels(connection, ends(connection, STATE), flags), strict=True))


def test_labels_are_istios() -> None:
    shown = named(OUTBOUND, "CONNECT")
    assert shown == {
        "reporter": "source",
        "source_workload": "web-deployment",
        "source_canonical_service": "web",
        "source_canonical_revision": "v2",
        "source_workload_namespace": "shop",
        "source_principal": "spiffe://cluster.local/ns/shop/sa/web",
        "source_app": "web",
        "source_version": "v2",
        "source_cluster": "Kubernetes",
        "source_region": "eu",
        "source_zone": "eu-1",
        "destination_service": "db.data.svc.cluster.local",
        "destination_service_namespace": "data",
        "destination_service_name": "db",
        "destination_workload": "db",
        "destination_canonical_service": "unknown",
        "destination_canonical_revision": "unknown",
        "destination_workload_namespace": "data",
        "destination_principal": "spiffe://cluster.local/ns/data/sa/db",
        "destination_app": "unknown",
        "destination_version": "unknown",
        "destination_cluster": "Kubernetes",
        "destination_region": "unknown",
        "destination_zone": "unknown",
        "request_protocol": "tcp",
        "connection_security_policy": "mutual_tls",
        "response_flags": "CONNECT",
    }


def test_an_unknown_peer_is_called_so() -> None:
    plain = Connection("inbound", "TCP", DB.uid, OUTBOUND.source, OUTBOUND.destination)
    shown = named(plain)
    assert shown["reporter"] == "destination"
    assert shown["source_workload"] == shown["source_principal"] == "unknown"
    assert shown["destination_workload"] == "db"
    assert shown["connection_security_policy"] == "unknown"


STYLE = Style(as_json=True)
BOOK = NameBook(STYLE.pairs)


def logged(connection: Connection) -> dict[str, object]:
    parts = AccessLog(STYLE).parts(connection, BOOK.of(connection, STATE))
    found: dict[str, object] = json.loads(STYLE.line(0, "info", "access", "", parts))
    return {name: value for name, value in found.items() if name not in ("level", "time", "scope", "message")}


def test_the_access_log_has_istios_fields() -> None:
    assert logged(OUTBOUND) == {
        "src.addr": "10.0.0.1:40000",
        "src.workload": "web",
        "src.namespace": "shop",
        "src.identity": "spiffe://cluster.local/ns/shop/sa/web",
        "src.cluster": "Kubernetes",
        "dst.addr": "10.0.0.2:15008",
        "dst.hbone_addr": "10.96.0.2:80",
        "dst.service": "db.data.svc.cluster.local",
        "dst.workload": "db",
        "dst.namespace": "data",
        "dst.identity": "spiffe://cluster.local/ns/data/sa/db",
        "dst.cluster": "Kubernetes",
        "direction": "outbound",
        "bytes_sent": 22,
        "bytes_recv": 11,
        "duration": "250ms",
    }


def test_the_access_log_of_what_was_refused_at_once_has_no_figures() -> None:
    """As Istio's has it for an early denial: a handshake that failed has no bytes, and no 0 ms."""
    refused = replace(OUTBOUND, opened=False, flags="TLS_FAILURE", error="no certificate", ended=OUTBOUND.started)
    fields = logged(refused)
    assert fields["error"] == "no certificate"
    assert not {"duration", "bytes_sent", "bytes_recv"} & fields.keys()


def samples(metrics: ConnectionMetrics) -> dict[str, float]:
    return {sample.name: sample.value for family in metrics.collect() for sample in family.samples}


def test_bytes_count_while_a_connection_lives_and_never_go_down() -> None:
    metrics = ConnectionMetrics()
    metrics.opened(BOOK.of(OUTBOUND, STATE))
    metrics.live([(OUTBOUND, BOOK.of(OUTBOUND, STATE))])
    assert samples(metrics)["istio_tcp_received_bytes_total"] == 11
    metrics.live([])  # it did not answer in time
    assert samples(metrics)["istio_tcp_received_bytes_total"] == 11
    metrics.closed(replace(OUTBOUND, sent=15), BOOK.of(OUTBOUND, STATE))
    metrics.live([])
    shown = samples(metrics)
    assert shown["istio_tcp_received_bytes_total"] == 15
    assert shown["istio_tcp_sent_bytes_total"] == 22
    assert shown["istio_tcp_connections_opened_total"] == shown["istio_tcp_connections_closed_total"] == 1


def test_a_connection_too_short_to_be_announced_counts_once() -> None:
    metrics = ConnectionMetrics()
    metrics.closed(replace(OUTBOUND, announced=False), BOOK.of(OUTBOUND, STATE))
    shown = samples(metrics)
    assert shown["istio_tcp_connections_opened_total"] == shown["istio_tcp_connections_closed_total"] == 1


def test_labels_follow_the_mesh() -> None:
    metrics, state = ConnectionMetrics(), MeshState(STATE.snapshot())
    metrics.opened(BOOK.of(OUTBOUND, state))
    state.apply(MeshUpdate(workloads=(dataclasses.replace(WEB, canonical_name="renamed"),)))
    metrics.opened(BOOK.of(OUTBOUND, state))
    names = [
        sample.labels["source_canonical_service"]
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == "istio_tcp_connections_opened_total"
    ]
    assert names[1] == "renamed" != names[0]


def test_what_was_refused_is_a_failure_and_not_a_connection() -> None:
    metrics = ConnectionMetrics()
    metrics.closed(replace(OUTBOUND, opened=False, flags="IDENTITY_ERROR"), BOOK.of(OUTBOUND, STATE))
    assert samples(metrics) == {"istio_tcp_connections_failed_total": 1}


def test_the_mesh_is_known_when_the_control_plane_has_told_of_everything_once() -> None:
    published: list[MeshUpdate] = []
    feed = MeshFeed(published.append)
    feed.received(MeshUpdate(workloads=(WEB,)), False)
    assert not feed.known
    assert published == []
    feed.received(MeshUpdate(), True)
    assert feed.known
    assert published == [MeshUpdate(workloads=(WEB,), replace=True)]
    feed.received(MeshUpdate(), True)
    feed.received(MeshUpdate(workloads=(DB,)), True)
    assert published[1:] == [MeshUpdate(workloads=(DB,))]


def test_an_empty_mesh_is_known_too() -> None:
    published: list[MeshUpdate] = []
    feed = MeshFeed(published.append)
    feed.received(MeshUpdate(), False)
    feed.received(MeshUpdate(), True)
    assert feed.known
    assert published == [MeshUpdate(replace=True)]


def test_changes_go_on_from_what_the_disk_knew() -> None:
    published: list[MeshUpdate] = []
    feed = MeshFeed(published.append)
    feed.restored(MeshUpdate(workloads=(WEB, DB), replace=True))
    feed.received(MeshUpdate(removed_workloads=(DB.uid,)), False)
    assert [one.uid for one in feed.state.snapshot().workloads] == [WEB.uid]
    assert len(published) == 2


def packet(**payload: object) -> bytes:
    return zds_pb2.WorkloadRequest(**payload).SerializeToString()  # type: ignore[arg-type]


INFO = zds_pb2.WorkloadInfo(name="web", namespace="shop", service_account="sa")
ADD = packet(add=zds_pb2.AddWorkload(uid="u", workload_info=INFO))
SENT = packet(snapshot_sent=zds_pb2.SnapshotSent())
KEEP = packet(keep=zds_pb2.KeepWorkload(uid="k"))


def test_a_snapshot_names_what_was_added_and_kept_and_not_deleted_again() -> None:
    session = zds.Session()
    assert session.received(ADD, [7]) == zds.Add("u", "web", "shop", "sa", 7)
    assert session.received(KEEP, []) == zds.Keep("k")
    other = packet(add=zds_pb2.AddWorkload(uid="gone", workload_info=INFO))
    session.received(other, [8])
    delete = zds_pb2.WorkloadRequest()
    getattr(delete, "del").uid = "gone"
    assert session.received(delete.SerializeToString(), []) == zds.Remove("gone")
    assert session.received(SENT, []) == zds.Synced(frozenset({"u", "k"}))


@pytest.mark.parametrize("again", [SENT, KEEP])
def test_what_belongs_to_a_snapshot_cannot_come_after_it(again: bytes) -> None:
    session = zds.Session()
    session.received(SENT, [])
    with pytest.raises(zds.ZdsError):
        session.received(again, [])


@given(st.binary(max_size=1100), st.integers(0, 3))
def test_arbitrary_packets_are_an_action_or_a_protocol_error(data: bytes, descriptors: int) -> None:
    try:
        action = zds.Session().received(data, list(range(descriptors)))
    except zds.ZdsError:
        return
    assert isinstance(action, zds.Add) == (descriptors == 1)


@given(st.text(max_size=3000))
def test_an_acknowledgement_fits_its_packet(error: str) -> None:
    assert len(zds.acknowledgement(error)) <= zds.MAX_PACKET


def test_processes_are_told_apart_from_later_ones_of_the_same_number() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert identify(os.getpid()) == me
    assert identify(2**22 + 1) is None


def test_only_workers_of_a_dead_agent_are_orphans(tmp_path: Path) -> None:
    path = tmp_path / "workers.json"
    me = identify(os.getpid())
    assert me is not None
    Roster(path).write([me])
    assert Roster(path).orphans == frozenset()  # their agent, this process, lives
    text = path.read_text()
    path.write_text(text.replace(f'"started":{me.started}', '"started":1', 1))
    assert Roster(path).orphans == {me}
    path.write_text("nonsense")
    assert Roster(path).orphans == frozenset()


def test_a_process_that_is_gone_is_nobodys_orphan(tmp_path: Path) -> None:
    path = tmp_path / "workers.json"
    Roster(path).write([ProcessId(os.getpid(), 1)])
    me = identify(os.getpid())
    assert me is not None
    path.write_text(path.read_text().replace(f'"started":{me.started}', '"started":2'))
    assert Roster(path).orphans == frozenset()
