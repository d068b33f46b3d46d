"""What breaks while a load runs: requests go on or are refused, none can be read, and all is well again by itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from tests.kube import pods
from tests.kube.installed import NAMESPACE, KubeMesh, until

CONTROLLER = "deployment/ambit-controller"
SHORT = 6  # seconds of an outage; the long ones are those that users are promised
LONG_API_SERVER, LONG_CONTROLLER = 30, 60
LONGER_THAN_A_RESTART = 1500  # requests of one client, with a pause of 5 ms after each
_numbers = count(1)


@pytest.fixture(scope="module")
def place(mesh: KubeMesh) -> Iterator[str]:
    """An enrolled namespace: a client on the first node, a server on the other, and a Deployment on both."""
    here, there = mesh.nodes
    with mesh.namespace("faults", meshed=True) as name:
        web = pods.deployment(name, "web", 2, ("/traffic", "serve", str(pods.PORT)))
        web["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        spec = web["spec"]["template"]["spec"]
        # As people do it: a pod serves until everybody has heard that it ends.
        spec["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}
        spec["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": pods.PORT}, "periodSeconds": 1}
        spec["terminationGracePeriodSeconds"] = 5
        mesh.apply(
            pods.manifest(
                pods.idle(name, "client", here),
                # Without a readiness probe: a kubelet that starts takes whoever has one for unready until it has
                # probed, so that its Service has no endpoint for a moment, in every network.
                pods.pod(name, "far", ("/traffic", "serve", str(pods.PORT)), there),
                pods.service(name, "far"),
                web,
                pods.service(name, "web"),
            )
        )
        mesh.kubectl("rollout", "status", "deployment/web", "-n", name, "--timeout=120s")
        mesh.wait_ready(name)
        mesh.wait_redirected(name)
        await_well(mesh, name)
        yield name


def marker() -> str:
    return f"fault{next(_numbers)}x{time.time_ns() % 1_000_000}"


@contextmanager
def unreadable(mesh: KubeMesh) -> Iterator[str]:
    """A marker that must not be seen between the nodes."""
    found = marker()
    with mesh.sniff(re.escape(found.encode())) as clear:
        yield found
    assert clear.frames
    assert not clear.missed
    assert clear.found == []


def requests(mesh: KubeMesh, place: str, mark: str, number: int = 30) -> Any:
    """The outcome of so many connections to each service, one after the other."""
    return [
        result_of(
            mesh.exec(f"{place}/client", "/traffic", "load", f"{service}:{pods.PORT}", mark, "0", "1", str(number))
        )
        for service in ("far", "web")
    ]


def result_of(output: str) -> Any:
    return json.loads(output.splitlines()[-1])


def await_well(mesh: KubeMesh, place: str) -> None:
    """Until nothing fails any more."""
    until(lambda: all(not each["bad"] for each in requests(mesh, place, "well")), "all requests succeed again", 90)


Fault = Callable[[KubeMesh, str], object]


def rolling_restart(mesh: KubeMesh, place: str) -> None:
    mesh.kubectl("rollout", "restart", "deployment/web", "-n", place)
    mesh.kubectl("rollout", "status", "deployment/web", "-n", place, "--timeout=120s")


def pods_deleted(mesh: KubeMesh, place: str) -> None:
    mesh.kubectl("delete", "pod", "-l", "app=web", "-n", place, "--wait=true")
    mesh.kubectl("rollout", "status", "deployment/web", "-n", place, "--timeout=120s")


def killed(*words: str) -> Fault:
    """A process of each node; the kubelet starts its container again, or its parent does."""

    def kill(mesh: KubeMesh, _: str) -> None:
        for node in mesh.nodes:
            assert mesh.kill(node, *words), f"{node} has no {' '.join(words)}"
        until(lambda: all(mesh.processes(node, *words) for node in mesh.nodes), f"{' '.join(words)} runs again", 60)

    return kill


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(rolling_restart, id="rolling restart"),
        pytest.param(pods_deleted, id="pods deleted"),
        pytest.param(killed("ztunnel.worker"), id="workers killed"),
        pytest.param(killed("ztunnel.agent"), id="ztunnels killed"),
    ],
)
def test_traffic_goes_on_or_is_refused(mesh: KubeMesh, place: str, fault: Fault) -> None:
    with unreadable(mesh) as mark:
        load = mesh.load(f"{place}/client", "web", pods.PORT, mark)
        fault(mesh, place)
        await_well(mesh, place)
        said = load.finish()
        assert all(each["good"] for each in requests(mesh, place, mark))
    assert said["good"]
    assert set(mesh.redirections(place).values()) == {"enabled"}


def test_nothing_fails_while_node_agents_are_replaced(mesh: KubeMesh, place: str) -> None:
    """They enrol, they carry nothing. Killed here alone: a kubelet waits longer before each further start."""
    with unreadable(mesh) as mark:
        load = mesh.load(f"{place}/client", "far", pods.PORT, mark)
        killed("deploy.node")(mesh, place)
        said = load.finish()
    assert (said["bad"], bool(said["good"])) == ({}, True)


@pytest.mark.long
@pytest.mark.parametrize("words", ["ztunnel.agent", "deploy.node", "--store=kubernetes"])
def test_what_hangs_is_started_again(mesh: KubeMesh, place: str, words: str) -> None:
    """Stopped, not ended: nobody notices but who asks it. The last is the controller."""
    with unreadable(mesh) as mark:
        stopped = {node: mesh.kill(node, words, signal="STOP") for node in mesh.nodes}
        assert any(stopped.values())
        for node, processes in stopped.items():
            until(
                lambda node=node, processes=processes: not set(mesh.processes(node, words)) & set(processes),
                f"{words} of {node} is ended",
                240,
            )
        await_well(mesh, place)
        assert_new_pods_are_served(mesh, place, mark)


@pytest.mark.parametrize("seconds", [SHORT, pytest.param(LONG_CONTROLLER, marks=pytest.mark.long)])
def test_nothing_fails_while_the_controller_is_away(mesh: KubeMesh, place: str, seconds: int) -> None:
    with unreadable(mesh) as mark:
        load = mesh.load(f"{place}/client", "far", pods.PORT, mark)
        mesh.kubectl("scale", CONTROLLER, "-n", NAMESPACE, "--replicas=0")
        try:
            mesh.kubectl("wait", "pod", "-n", NAMESPACE, "-l", "app=ambit-controller", "--for=delete", "--timeout=60s")
            time.sleep(seconds)
        finally:
            mesh.kubectl("scale", CONTROLLER, "-n", NAMESPACE, "--replicas=1")
        mesh.kubectl("rollout", "status", CONTROLLER, "-n", NAMESPACE, "--timeout=120s")
        said = load.finish()
        await_well(mesh, place)
        assert_new_pods_are_served(mesh, place, mark)
    assert (said["bad"], bool(said["good"])) == ({}, True)


@pytest.mark.parametrize("seconds", [SHORT, pytest.param(LONG_API_SERVER, marks=pytest.mark.long)])
def test_nothing_fails_while_the_api_server_is_away(mesh: KubeMesh, place: str, seconds: int) -> None:
    with unreadable(mesh) as mark:
        name = start_load(mesh, place, f"runner-{seconds}", mark, seconds * 100)
        mesh.daemon("kube-apiserver", "stop", kill=True)
        try:
            time.sleep(seconds)
        finally:
            mesh.daemon("kube-apiserver", "start")
        said = outcome(mesh, place, name)
        await_well(mesh, place)
        assert_new_pods_are_served(mesh, place, mark)
    assert (said["bad"], bool(said["good"])) == ({}, True)


@pytest.mark.parametrize("daemon", ["kubelet", "containerd"])
def test_nothing_fails_while_daemons_of_the_nodes_are_killed(mesh: KubeMesh, place: str, daemon: str) -> None:
    with unreadable(mesh) as mark:
        name = start_load(mesh, place, f"beside-{daemon}", mark, LONGER_THAN_A_RESTART)
        for node in mesh.nodes:
            mesh.daemon(f"{node}.{daemon}", "restart", kill=True)
        said = outcome(mesh, place, name)
        await_well(mesh, place)
        assert_new_pods_are_served(mesh, place, mark)
    assert (said["bad"], bool(said["good"])) == ({}, True)
    assert set(mesh.redirections(place, "-l", "app in (client, far, web)").values()) == {"enabled"}


def start_load(mesh: KubeMesh, place: str, name: str, mark: str, number: int) -> str:
    """In a pod of its own: `kubectl exec` ends with the API server, the kubelet and containerd."""
    mesh.apply(pods.manifest(load_pod(mesh, place, name, mark, number)))
    until(lambda: "loading" in logs(mesh, place, name, "main"), "the load runs")
    return name


def load_pod(mesh: KubeMesh, place: str, name: str, mark: str, number: int, **more: Any) -> pods.Object:
    """It makes so many requests and ends."""
    where = f"far:{pods.PORT}"
    command = ("/traffic", "load", where, mark, "1", "1", str(number))
    return pods.pod(place, name, command, mesh.nodes[0], restartPolicy="Never", **more)


def outcome(mesh: KubeMesh, place: str, name: str, container: str = "main") -> Any:
    ended = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    mesh.kubectl("wait", "pod", name, "-n", place, *ended)
    return result_of(mesh.kubectl("logs", name, "-n", place, "-c", container))


def assert_new_pods_are_served(mesh: KubeMesh, place: str, mark: str) -> None:
    """Whatever was away has heard of what came meanwhile."""
    name = f"new-{next(_numbers)}"
    mesh.apply(pods.manifest(load_pod(mesh, place, name, mark, 10)))
    assert outcome(mesh, place, name)["bad"] == {}
    mesh.kubectl("delete", "pod", name, "-n", place)


def test_init_containers_are_in_the_mesh(mesh: KubeMesh, place: str) -> None:
    with unreadable(mesh) as mark:
        pod = load_pod(mesh, place, "begins", mark, 5)
        (main,) = pod["spec"]["containers"]
        pod["spec"]["initContainers"] = [{**main, "name": "first"}]
        mesh.apply(pods.manifest(pod))
        said = outcome(mesh, place, "begins"), outcome(mesh, place, "begins", "first")
    assert [(each["good"], each["bad"]) for each in said] == [(10, {}), (10, {})]


def test_ephemeral_containers_are_in_the_mesh(mesh: KubeMesh, place: str) -> None:
    with unreadable(mesh) as mark:
        command = ("--", "/traffic", "load", f"far:{pods.PORT}", mark, "1", "1", "5")
        image = (f"--image={mesh.apps}", "--image-pull-policy=IfNotPresent", "--container=look", "--profile=general")
        mesh.kubectl("debug", "client", "-n", place, *image, *command)
        until(lambda: '"good"' in logs(mesh, place, "client", "look"), "the ephemeral container ends")
    said = result_of(logs(mesh, place, "client", "look"))
    assert (said["good"], said["bad"]) == (10, {})


def logs(mesh: KubeMesh, place: str, pod: str, container: str) -> str:
    try:
        return mesh.kubectl("logs", pod, "-n", place, "-c", container)
    except Exception:  # it has not started yet
        return ""


def test_a_job_ends_and_is_forgotten(mesh: KubeMesh, place: str) -> None:
    with unreadable(mesh) as mark:
        spec = load_pod(mesh, place, "job", mark, 5)["spec"]
        metadata = {"name": "job", "namespace": place}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": spec}}}
        mesh.apply(pods.manifest(job))
        mesh.kubectl("wait", "job/job", "-n", place, "--for=condition=Complete", "--timeout=60s")
        assert result_of(mesh.kubectl("logs", "job/job", "-n", place))["bad"] == {}
    until(lambda: "/job-" not in served(mesh, place), "no ztunnel serves the pod that has ended")


def served(mesh: KubeMesh, place: str) -> str:
    return mesh.ambit("ztunnel-config", "workload", "-n", place, "-o", "json").stdout


def test_pods_that_are_deleted_while_they_join_leave_nothing(mesh: KubeMesh) -> None:
    with mesh.namespace("brief", meshed=True) as name:
        for number in range(4):
            short = [pods.idle(name, f"short-{number}-{node}", node) for node in mesh.nodes]
            mesh.apply(pods.manifest(*short))
            time.sleep(0.3 * number)  # not scheduled, being made, being enrolled, enrolled
            mesh.kubectl("delete", "pod", "--all", "-n", name, "--wait=false")
        mesh.kubectl("wait", "pod", "--all", "-n", name, "--for=delete", "--timeout=60s")
        mesh.label("namespace", name, None)
        # ztunnel asks for the certificate of a pod that goes until it has heard of its end.
        until(lambda: name not in mesh.ambit("status").stdout, "nothing is said of them")
