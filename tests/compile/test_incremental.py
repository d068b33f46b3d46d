"""Whatever happens in whatever order: the mesh that the updates lead to is the one that compiling afresh gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store.interface import Event
from tests.compile.objects import (
    Mesh,
    Object,
    applied,
    deleted,
    endpoint_slice,
    namespace,
    node,
    pod,
    service,
    to_pod,
)

# Few names, so that objects refer to each other, clash and come back.
_pods = st.sampled_from(["a", "b", "c"])
_ips = st.lists(st.sampled_from(["10.1.0.1", "10.1.0.2", "fd00::1"]), max_size=2, unique=True)
_times = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])


@st.composite
def a_pod(draw: st.DrawFn) -> Object:
    return pod(
        draw(_pods),
        *draw(_ips),
        node=draw(st.sampled_from(["", "node1", "node2"])),
        phase=draw(st.sampled_from(["Running", "Running", "Failed"])),
        host_network=draw(st.booleans()),
        ready=draw(st.booleans()),
        creationTimestamp=draw(_times),
        uid=draw(st.sampled_from(["1", "2"])),
        labels=draw(st.sampled_from([{}, {"istio.io/dataplane-mode": "x"}])),
    )


@st.composite
def a_service(draw: st.DrawFn) -> Object:
    return service(
        draw(st.sampled_from(["s", "t"])),
        *draw(st.lists(st.sampled_from(["10.2.0.1", "10.2.0.2"]), max_size=2, unique=True)),
        metadata={"creationTimestamp": draw(_times)},
        type=draw(st.sampled_from(["ClusterIP", "ClusterIP", "ExternalName"])),
        ports=draw(
            st.sampled_from([[], [{"name": "http", "port": 80, "targetPort": "http"}], [{"name": "x", "port": 81}]])
        ),
    )


@st.composite
def a_slice(draw: st.DrawFn) -> Object:
    to_pods = st.builds(
        lambda name, uid: to_pod(name, **({"uid": uid} if uid else {})), _pods, st.sampled_from(["", "1"])
    )
    alone = st.builds(
        lambda ip, at: {"addresses": [ip], "nodeName": at}, st.sampled_from(["192.0.2.1"]), st.just("node1")
    )
    return endpoint_slice(
        draw(st.sampled_from(["x", "y"])),
        draw(st.sampled_from(["s", "t", ""])),
        draw(st.lists(to_pods | alone, max_size=3)),
        ports=draw(st.sampled_from([[], [{"name": "http", "port": 8080}], [{"name": "x", "port": 9090}]])),
    )


_nodes = st.builds(
    lambda name, zone: node(name, **{"topology.kubernetes.io/zone": zone}),
    st.sampled_from(["node1", "node2"]),
    st.sampled_from(["z", "y"]),
)
_namespaces = st.builds(
    lambda value: namespace(annotations={"networking.istio.io/traffic-distribution": value}),
    st.sampled_from(["PreferClose", "Any", "wrong"]),
)
_objects = a_pod() | a_service() | a_slice() | _nodes | _namespaces
_events = st.lists(st.lists(st.builds(applied, _objects) | st.builds(deleted, _objects), max_size=4), max_size=12)


@settings(max_examples=400, deadline=None)
@given(_events)
def test_incremental_is_the_same_as_from_scratch(batches: list[list[Event]]) -> None:
    mesh = Mesh()
    latest: dict[object, Event] = {}
    for batch in batches:
        mesh.take(*batch)
        latest.update({event.key: event for event in batch})
    afresh = Mesh()
    afresh.take(*latest.values())
    assert mesh.workloads == afresh.workloads
    assert mesh.services == afresh.services
    assert mesh.compiler.problems() == afresh.compiler.problems()
    assert {workload.uid for workload in mesh.compiler.everything().workloads} == mesh.workloads.keys()


@settings(max_examples=100, deadline=None)
@given(_events)
def test_when_all_is_deleted_nothing_is_left(batches: list[list[Event]]) -> None:
    mesh = Mesh()
    for batch in batches:
        mesh.take(*batch)
    mesh.take(*(deleted(event.object) for batch in batches for event in batch if event.object is not None))  # type: ignore[arg-type]
    assert not mesh.workloads
    assert not mesh.services
    assert not mesh.compiler.problems()
    index = mesh.compiler.index
    for links in (value for value in vars(index).values() if hasattr(value, "sources")):
        assert not links._sources
        assert not links._targets
