"""Applying a manifest again changes what it says and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store import merge
from controller.store.interface import Conflict

_values = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2) | st.lists(st.integers(0, 3), max_size=2),
    lambda values: st.dictionaries(st.sampled_from("abcd"), values, max_size=3),
    max_leaves=10,
)
_mappings = st.dictionaries(st.sampled_from("abcd"), _values, max_size=4)


def contains(value: object, wanted: object) -> bool:
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(name in value and contains(value[name], item) for name, item in wanted.items())
    return value == wanted


@given(last=_mappings, current=_mappings, wanted=_mappings)
def test_what_is_wanted_is_true_afterwards_and_stays_so(last: dict, current: dict, wanted: dict) -> None:  # type: ignore[type-arg]
    result = merge.three_way(last, current, wanted)
    assert contains(result, wanted)
    assert merge.three_way(wanted, result, wanted) == result


@given(wanted=_mappings, others=_values)
def test_what_others_wrote_survives(wanted: dict, others: object) -> None:  # type: ignore[type-arg]
    current = merge.three_way({}, {"others": others}, wanted)
    assert merge.three_way(wanted, current, wanted)["others"] == others


@given(last=_mappings, wanted=_mappings)
def test_what_was_applied_and_is_no_longer_wanted_goes(last: dict, wanted: dict) -> None:  # type: ignore[type-arg]
    assert merge.three_way(last, last, wanted) == wanted


def manifest(**metadata: object) -> dict:  # type: ignore[type-arg]
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", **metadata}}


def test_a_label_set_by_hand_survives_and_one_from_the_manifest_goes_with_it() -> None:
    first = merge.applied(None, manifest(labels={"team": "a"}))
    first["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    assert merge.applied(first, manifest())["metadata"]["labels"] == {"istio.io/dataplane-mode": "ambient"}


def test_the_status_of_a_manifest_is_not_taken() -> None:
    current = merge.applied(None, manifest()) | {"status": {"phase": "Active"}}
    assert merge.applied(current, manifest() | {"status": {"phase": "X"}})["status"] == {"phase": "Active"}


def test_a_manifest_that_was_read_earlier_conflicts_with_a_later_change() -> None:
    current = merge.stamped(None, merge.applied(None, manifest()), "now", 7, "uid")
    assert merge.applied(current, manifest(resourceVersion="7"))["metadata"]["name"] == "shop"
    with pytest.raises(Conflict, match="Namespace shop has changed since resourceVersion 6 was read"):
        merge.applied(current, manifest(resourceVersion="6"))
