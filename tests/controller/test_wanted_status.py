"""The status of objects: what is ours is brought to what is wanted, what is others' stays."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from controller.compile.gateways import CONTROLLER
from controller.compile.wanted import NOTHING, Wanted, WantedListener, WantedParent, WantedStatus
from controller.wanted_status import bring, is_current

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
WEB = (("group", ""), ("kind", "Service"), ("name", "web"))
GOOD = WantedStatus(parents=(WantedParent(WEB, (Wanted("Accepted", True, "Accepted"),)),))
BAD = WantedStatus(parents=(WantedParent(WEB, (Wanted("Accepted", False, "NoMatchingParent", "gone"),)),))


def brought(obj: dict[str, Any], wanted: WantedStatus, now: str = EARLY) -> dict[str, Any]:
    copy = deepcopy(obj)
    bring(copy, wanted, now)
    status = copy["status"]
    generation = obj["metadata"].get("generation", 0)
    assert is_current(status, generation, wanted)
    assert is_current(deepcopy(obj.get("status")), generation, wanted) == (status == obj.get("status"))
    return copy


def route(**more: Any) -> dict[str, Any]:
    return {"kind": "HTTPRoute", "metadata": {"generation": 3}, **more}


def test_the_time_changes_only_with_the_status() -> None:
    first = brought(route(), GOOD)
    (parent,) = first["status"]["parents"]
    assert parent["controllerName"] == CONTROLLER
    assert parent["parentRef"] == dict(WEB)
    assert parent["conditions"] == [
        {
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "observedGeneration": 3, "lastTransitionTime": EARLY,
        }
    ]  # fmt: skip
    first["metadata"]["generation"] = 4
    assert not is_current(first["status"], 4, GOOD)
    (condition,) = brought(first, GOOD, LATE)["status"]["parents"][0]["conditions"]
    assert (condition["observedGeneration"], condition["lastTransitionTime"]) == (4, EARLY)
    (condition,) = brought(first, BAD, LATE)["status"]["parents"][0]["conditions"]
    assert (condition["reason"], condition["lastTransitionTime"]) == ("NoMatchingParent", LATE)


def test_entries_of_others_stay_where_they_are_and_ours_go_with_their_parent() -> None:
    theirs = {"controllerName": "other.example/c", "parentRef": dict(WEB), "conditions": [{"type": "X"}]}
    gone = {"controllerName": CONTROLLER, "parentRef": {**dict(WEB), "name": "gone"}, "conditions": []}
    ours = {"controllerName": CONTROLLER, "parentRef": dict(WEB), "conditions": [{"type": "Old", "status": "True"}]}
    found = brought(route(status={"parents": [gone, ours, theirs]}), GOOD)["status"]["parents"]
    assert [each["controllerName"] for each in found] == [CONTROLLER, "other.example/c"]
    assert [each["type"] for each in found[0]["conditions"]] == ["Accepted"]
    assert found[1] == theirs
    assert brought(route(status={"parents": [ours, theirs]}), WantedStatus(parents=()))["status"]["parents"] == [theirs]


def test_other_conditions_stay_and_what_is_not_wanted_any_more_goes() -> None:
    service = {"kind": "Service", "metadata": {}, "status": {"loadBalancer": {}, "conditions": [{"type": "Theirs"}]}}
    bound = WantedStatus((Wanted("istio.io/WaypointBound", True, "WaypointAccepted"),))
    after = brought(service, bound)
    assert [each["type"] for each in after["status"]["conditions"]] == ["Theirs", "istio.io/WaypointBound"]
    dropped = WantedStatus(dropped=frozenset({"istio.io/WaypointBound"}))
    assert brought(after, dropped)["status"] == service["status"]
    assert brought({"kind": "Service", "metadata": {}, "status": {}}, dropped)["status"] == {}
    assert is_current(None, 0, NOTHING)


def test_a_gateways_addresses_stay_when_there_are_none_to_tell() -> None:
    gateway = {"kind": "Gateway", "metadata": {"generation": 1}}
    listeners = (WantedListener("mesh", (Wanted("Accepted", True, "Accepted"),)),)
    first = brought(gateway, WantedStatus(listeners=listeners, addresses=(("IPAddress", "10.0.0.1"),)))
    later = brought(first, WantedStatus(listeners=listeners))
    assert later["status"]["addresses"] == [{"type": "IPAddress", "value": "10.0.0.1"}]
    assert later["status"]["listeners"][0]["conditions"][0]["lastTransitionTime"] == EARLY
