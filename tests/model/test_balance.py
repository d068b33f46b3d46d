"""Locality load balancing: Istio's vectors of what is nearest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.balance import nearest
from mesh.model.index import Endpoints
from mesh.model.workload import LoadBalancing, LoadBalancingMode, Locality, Scope
from tests.model.building import pod

PREFERENCE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
ENDPOINTS = [
    pod("match", network="nw", locality=Locality("reg", "zone")),
    pod("almost", network="nw", locality=Locality("reg", "elsewhere")),
    pod("no-locality", network="nw"),
    pod("other", network="nw2", locality=Locality("reg", "zone")),
]
EVERYTHING = {each.name for each in ENDPOINTS}


def names(mode: LoadBalancingMode, network: str, region: str, zone: str) -> set[str]:
    source = pod("source", network=network, locality=Locality(region, zone))
    return {each.name for each in nearest(LoadBalancing(PREFERENCE, mode), source, ENDPOINTS)}


@pytest.mark.parametrize(
    ("network", "region", "zone", "expected"),
    [
        ("nowhere", "nowhere", "nowhere", EVERYTHING),
        ("nw", "reg", "zone", {"match"}),
        ("nw", "reg", "third", {"match", "almost"}),
        ("nw", "third", "zone", {"match", "almost", "no-locality"}),
        ("nw3", "reg", "zone", {"match", "other"}),
        ("nw2", "third", "third", {"other"}),
    ],
)
def test_failover_takes_those_that_share_most(network: str, region: str, zone: str, expected: set[str]) -> None:
    assert names(LoadBalancingMode.FAILOVER, network, region, zone) == expected


@pytest.mark.parametrize(
    ("network", "region", "zone", "expected"),
    [
        ("nowhere", "nowhere", "nowhere", set()),
        ("nw", "reg", "zone", {"match"}),
        ("nw", "reg", "third", set()),
        ("nw3", "reg", "zone", set()),
    ],
)
def test_strict_takes_those_that_share_all(network: str, region: str, zone: str, expected: set[str]) -> None:
    assert names(LoadBalancingMode.STRICT, network, region, zone) == expected


def test_without_a_mode_the_preference_means_nothing() -> None:
    assert names(LoadBalancingMode.UNSPECIFIED, "nw", "reg", "zone") == EVERYTHING


@pytest.mark.parametrize("scope", [Scope.NODE, Scope.CLUSTER, Scope.SUBZONE])
def test_each_other_scope_can_be_preferred(scope: Scope) -> None:
    near = pod("near", node="n", cluster_id="c", locality=Locality(subzone="s"))
    far = pod("far", node="m", cluster_id="d", locality=Locality(subzone="t"))
    source = pod("source", node="n", cluster_id="c", locality=Locality(subzone="s"))
    assert nearest(LoadBalancing((scope,), LoadBalancingMode.FAILOVER), source, [far, near]) == [near]


@given(st.lists(st.integers(0, 1000), max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_draw_never_takes_an_endpoint_without_capacity(capacities: list[int], chance: float) -> None:
    drawn = Endpoints(pod(f"p{n}", capacity=c) for n, c in enumerate(capacities)).draw(chance)
    assert (drawn is None) == (sum(capacities) == 0)
    assert drawn is None or drawn.capacity > 0
