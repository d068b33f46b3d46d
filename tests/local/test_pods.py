"""From a pod's manifest to what is executed, and from what happened to its status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local.addresses import Pair, node_addresses, pod_addresses
from deploy.local.entry import CannotRun, Entry
from deploy.local.images import built_in
from deploy.local.node import containers, podstatus, sandbox
from deploy.local.node.podstatus import Container, Facts, Running, Terminated, Waiting
from deploy.local.paths import LONGEST_NETNS_NAME, Instance, netns_name
from mesh.model.address import canonical
from tests.local import objects

PAIR = Pair(canonical("10.244.1.2"), canonical("fd00::2"))
AROUND = containers.Surroundings(
    node="node1",
    node_address=node_addresses(1).address,
    addresses=PAIR,
    hostname="web-1",
    netns=Path("/netns"),
    cgroup=Path("/cgroup"),
    binds=(),
    hidden=(),
    volumes={"scratch": Path("/volumes/scratch")},
)


def entry(**container: Any) -> Entry:
    pod = objects.pod("web-1", serviceAccountName="web")
    return containers.entry(pod, {"name": "main", **container}, AROUND)


def test_command_and_arguments() -> None:
    found = entry(
        command=["/bin/echo", "$(WHO)", "$$(WHO)", "$(NOBODY)"], args=["x"], env=[{"name": "WHO", "value": "me"}]
    )
    assert found.command == ["/bin/echo", "me", "$(WHO)", "$(NOBODY)", "x"]


def test_fields_of_the_pod_in_the_environment() -> None:
    paths = {
        "NAME": "metadata.name",
        "SPACE": "metadata.namespace",
        "APP": "metadata.labels['app']",
        "NODE": "spec.nodeName",
        "IP": "status.podIP",
        "IPS": "status.podIPs",
        "ACCOUNT": "spec.serviceAccountName",
    }
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in paths.items()]
    found = entry(command=["true"], env=env).environment
    assert {name: found[name] for name in paths} == {
        "NAME": "web-1",
        "SPACE": "shop",
        "APP": "web",
        "NODE": "node1",
        "IP": "10.244.1.2",
        "IPS": "10.244.1.2,fd00::2",
        "ACCOUNT": "web",
    }


@pytest.mark.parametrize("image", ["ambit/echo", "ambit/echo:v1", "docker.io/ambit/echo@sha256:00"])
def test_built_in_images_need_no_command(image: str) -> None:
    assert entry(image=image).command == built_in("ambit/echo")


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"image": "nginx:1.27"}, ["'nginx:1.27'", "command"]),
        ({}, ["command"]),
        ({"command": ["x"], "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {}}}]}, ["KEY"]),
        ({"command": ["x"], "volumeMounts": [{"name": "secret", "mountPath": "/tmp"}]}, ["'secret'", "emptyDir"]),
        ({"command": ["x"], "volumeMounts": [{"name": "scratch", "mountPath": "/not/there"}]}, ["/not/there"]),
    ],
)
def test_what_cannot_run_says_why(container: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CannotRun) as failure:
        entry(**container)
    assert all(word in str(failure.value) for word in ["main", *words])


def test_user_and_volumes() -> None:
    mount = {"name": "scratch", "mountPath": "/tmp"}
    found = entry(command=["x"], securityContext={"runAsUser": 1000}, volumeMounts=[mount])
    assert (found.user, found.group) == (1000, 0)
    assert ("/volumes/scratch", "/tmp") in found.binds


# --- status


def facts(*found: Container, **more: Any) -> Facts:
    return Facts(node_addresses(1).address, objects.NOW, more.pop("init", ()), found, PAIR, **more)


def ended(code: int) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", objects.NOW, objects.NOW)


UP = Container("main", "ambit/echo", state=Running(objects.NOW))


def status(found: Facts, policy: str = "Always") -> dict[str, Any]:
    return podstatus.status(objects.pod("web-1", restartPolicy=policy), found, objects.NOW)


def ready(found: dict[str, Any]) -> str:
    return next(str(each["status"]) for each in found["conditions"] if each["type"] == "Ready")


def test_a_pod_that_runs() -> None:
    found = status(facts(UP))
    assert (found["phase"], ready(found)) == ("Running", "True")
    assert found["podIPs"] == [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]
    assert found["containerStatuses"][0]["state"] == {"running": {"startedAt": objects.NOW}}


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", [0], "Succeeded"),
        ("Never", [1], "Failed"),
        ("Never", [0, 1], "Failed"),
        ("OnFailure", [0], "Succeeded"),
        ("OnFailure", [1], "Running"),
        ("Always", [0], "Running"),
    ],
)
def test_phases_of_containers_that_ended(policy: str, codes: list[int], phase: str) -> None:
    found = status(
        facts(*(replace(UP, name=str(index), state=ended(code)) for index, code in enumerate(codes))), policy
    )
    assert (found["phase"], ready(found)) == (phase, "False")


def test_a_pod_that_waits_says_for_what() -> None:
    found = status(facts(Container("main", "x"), blocked=Waiting("WaitingForMesh", "ztunnel is not connected")))
    condition = next(each for each in found["conditions"] if each["type"] == "Ready")
    assert (found["phase"], condition["message"]) == ("Pending", "ztunnel is not connected")


def test_a_container_that_is_started_again() -> None:
    waiting = replace(UP, state=Waiting("CrashLoopBackOff", "it ended"), last=ended(3), restarts=2)
    found = status(facts(waiting))
    assert (found["phase"], ready(found)) == ("Running", "False")
    shown = found["containerStatuses"][0]
    assert (shown["restartCount"], shown["lastState"]["terminated"]["exitCode"]) == (2, 3)


def test_transition_times_stay_while_nothing_changes() -> None:
    pod = objects.pod("web-1")
    pod["status"] = podstatus.status(pod, facts(UP), "2020-01-01T00:00:00Z")
    later = podstatus.status(pod, facts(UP), objects.NOW)
    assert {each["lastTransitionTime"] for each in later["conditions"]} == {"2020-01-01T00:00:00Z"}


# --- places and names


def test_addresses_are_not_reused_at_once() -> None:
    node = node_addresses(3)
    place, first = pod_addresses(node, (), 1)
    assert first.both() == ("10.244.3.2", "fd00:10:244:3::2")
    again, second = pod_addresses(node, (), place)
    assert second.v4 == "10.244.3.3"
    assert pod_addresses(node, {again + 1}, again)[1].v4 == "10.244.3.5"
    last = node.pods_v4.num_addresses - 2
    assert pod_addresses(node, {last}, last)[1] == first
    with pytest.raises(ValueError, match="no free"):
        pod_addresses(node, set(range(256)), 1)


def test_names_are_bounded_and_unique() -> None:
    long = netns_name("ambit", "n" * 60, "p" * 200)
    assert len(long) == LONGEST_NETNS_NAME
    assert long != netns_name("ambit", "n" * 60, "p" * 201)
    assert netns_name("ambit", "shop", "web") == "ambit-shop-web"


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-x", "x" * 40])
def test_instances_have_plain_names(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Instance.named(name)


def test_files_of_a_pod() -> None:
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in sandbox.resolv_conf("shop")
    pod = objects.pod("web-0", hostname="web-0", subdomain="web", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["db"]}])
    text = sandbox.hosts(pod, PAIR)
    assert "10.244.1.2 web-0.web.shop.svc.cluster.local web-0\n" in text
    assert "1.2.3.4 db\n" in text
