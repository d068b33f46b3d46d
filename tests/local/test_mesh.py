"""A real mesh on this machine, outside and inside of the mesh: pods, Services, names, logs, enrolment."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cli.packets import PacketWatch
from deploy.local import api, namespaces
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION
from tests.local.mesh import LocalMesh, until

pytestmark = pytest.mark.root

RESOLVE = "import socket; print(sorted({{a[4][0] for a in socket.getaddrinfo({!r}, 80, {})}}))"


def watch(mesh: LocalMesh) -> PacketWatch:
    def within(work: Any) -> socket.socket:
        return namespaces.inside(mesh.instance.underlay, work)

    return PacketWatch(within)


def space(mesh: LocalMesh, name: str, ambient: bool = False) -> str:
    labels = f"labels: {{{DATAPLANE_MODE}: ambient}}" if ambient else "labels: {}"
    mesh.apply(f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  {labels}\n")
    return name


def pod(mesh: LocalMesh, name: str, where: str, spec: str) -> None:
    mesh.apply(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {where}}}\nspec: {spec}\n")


# --- the network


@pytest.mark.parametrize("v6", [False, True])
def test_pods_reach_each_other_across_nodes_and_see_true_addresses(mesh: LocalMesh, v6: bool) -> None:
    target, source = (mesh.address(each, "play", v6) for each in ("two", "one"))
    host, client = (f"[{each}]" if v6 else each for each in (target, source))
    with watch(mesh) as seen:
        assert mesh.ask("play", "one", f"http://{host}:8080/plain-words").startswith(f"two on node2 sees {client}:")
    assert seen.in_clear(b"plain-words")


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
@pytest.mark.parametrize("name", ["two", "two.play", "two.play.svc.cluster.local"])
def test_services_by_name(mesh: LocalMesh, name: str, family: str) -> None:
    program = (
        f"import socket; s = socket.socket(socket.{family}); s.settimeout(5); s.connect(({name!r}, 80)); "
        "s.send(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.makefile().read())"
    )
    assert "two on node2 sees" in mesh.python("play", "one", program)


@pytest.mark.parametrize("v6", [False, True])
def test_a_service_that_leads_back_to_the_pod(mesh: LocalMesh, v6: bool) -> None:
    """The pod sees its node: it would drop what seems to come from itself."""
    service = mesh.get("Service", "one", "play")
    assert service is not None
    address = next(each for each in service["spec"]["clusterIPs"] if (":" in each) == v6)
    url, node = (f"http://[{address}]/", "[fd00:172:18::b]") if v6 else (f"http://{address}/", "172.18.0.11")
    assert mesh.ask("play", "one", url).startswith(f"one on node1 sees {node}:")


def test_a_service_without_endpoints_refuses_at_once(mesh: LocalMesh) -> None:
    assert "Connection refused" in mesh.ask("play", "one", "http://empty/")


def test_names_of_headless_services(mesh: LocalMesh) -> None:
    for name in ("peers.play", "two.peers.play"):
        found = mesh.python("play", "one", RESOLVE.format(name, "socket.AF_INET"))
        assert found == str([mesh.address("two", "play")])


def test_a_name_that_does_not_exist(mesh: LocalMesh) -> None:
    found = mesh.python("play", "one", RESOLVE.format("nobody.play.svc.cluster.local", "0"))
    assert "Name or service not known" in found


# --- pods


def test_exec_passes_streams_and_exit_codes(mesh: LocalMesh) -> None:
    done = mesh.run("play", "one", "/bin/sh", "-c", "echo out; echo err >&2; hostname; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\none\n", "err\n")
    assert mesh.run("play", "one", "/bin/sh", "-c", "kill -9 $$").returncode == 137


def test_exec_of_what_is_not_there(mesh: LocalMesh) -> None:
    with pytest.raises(api.LocalError, match="no-such-command"):
        api.exec_in_pod("play", "one", ["no-such-command"])
    with pytest.raises(api.LocalError, match="nobody"):
        api.exec_in_pod("play", "nobody", ["true"])


def test_a_pod_cannot_touch_the_mesh_by_files(mesh: LocalMesh) -> None:
    """Sockets, tokens and other pods' namespaces are not in its view."""
    done = mesh.run("play", "one", "/bin/ls", str(mesh.instance.runtime), "/run/netns")
    assert done.stdout.split() == [f"{mesh.instance.runtime}:", "/run/netns:"] or done.stdout.split() == [
        "/run/netns:",
        f"{mesh.instance.runtime}:",
    ]


def test_a_job_with_init_containers_writes_logs_and_ends(mesh: LocalMesh) -> None:
    where = space(mesh, "jobs")
    pod(
        mesh,
        "job",
        where,
        "{restartPolicy: Never, volumes: [{name: tmp, emptyDir: {}}],"
        " initContainers: [{name: before, command: [sh, -c, 'echo first > /mnt/x'],"
        " volumeMounts: [{name: tmp, mountPath: /mnt}]}],"
        " containers: [{name: main, command: [sh, -c, 'cat /mnt/x; echo $ME'],"
        " env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}],"
        " volumeMounts: [{name: tmp, mountPath: /mnt}]}]}",
    )
    until(lambda: mesh.status("job", where).get("phase") == "Succeeded", "the job ends")
    assert "".join(api.read_logs(where, "job")) == "first\njob\n"
    uid = mesh.get("Pod", "job", where)["metadata"]["uid"]  # type: ignore[index]
    until(lambda: not mesh.instance.node("node1").pod_cgroup(uid).exists(), "its cgroup goes")
    mesh.delete("Namespace", where)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{containers: [{name: main, image: 'nginx:1'}]}", "'nginx:1'"),
        ("{containers: [{name: main, command: [/no/such/command]}]}", "/no/such/command"),
        ("{nodeSelector: {disk: fast}, containers: [{name: main, image: ambit/echo}]}", "nodeSelector"),
        ("{serviceAccountName: nobody, containers: [{name: main, image: ambit/echo}]}", "service account nobody"),
    ],
)
def test_a_pod_that_cannot_run_says_why(mesh: LocalMesh, spec: str, words: str) -> None:
    where = space(mesh, "cannot")
    pod(mesh, "bad", where, spec)

    def told() -> bool:
        return any(words in each.get("message", "") for each in mesh.status("bad", where).get("conditions", ()))

    until(told, f"its conditions tell of {words}")
    mesh.delete("Pod", "bad", where)
    until(lambda: mesh.get("Pod", "bad", where) is None, "it goes")


def test_a_container_that_ends_is_started_again(mesh: LocalMesh) -> None:
    where = space(mesh, "crash")
    pod(mesh, "crash", where, "{containers: [{name: main, command: [sh, -c, 'exit 3']}]}")

    def restarted() -> bool:
        found = mesh.status("crash", where).get("containerStatuses", [{}])[0]
        return (
            found.get("restartCount", 0) >= 1 and found.get("lastState", {}).get("terminated", {}).get("exitCode") == 3
        )

    until(restarted, "it is started again")
    mesh.delete("Namespace", where)


def test_readiness_decides_who_gets_connections(mesh: LocalMesh) -> None:
    where = space(mesh, "probes")
    probe = "{httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}"
    ports = "[{name: http, containerPort: 8080}]"
    mesh.apply(
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {where}}}\n"
        "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    mesh.apply(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: {where}, labels: {{app: web}}}}\n"
        f"spec: {{containers: [{{name: main, command: [sh, -c, 'while :; do sleep 0.1; done'],"
        f" ports: {ports}, readinessProbe: {probe}}}]}}\n"
    )
    until(lambda: mesh.status("web", where).get("phase") == "Running", "it runs")

    def endpoints() -> list[bool]:
        slices = mesh.all("EndpointSlice", where)
        return [each["conditions"]["ready"] for found in slices for each in found.get("endpoints", ())]

    until(lambda: endpoints() == [False], "it is an endpoint that is not ready")
    server = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
    starting = f'setsid /usr/bin/python3 -c "{server}" >/dev/null 2>&1 &'
    assert mesh.run(where, "web", "/bin/sh", "-c", starting).returncode == 0
    until(lambda: endpoints() == [True], "it is ready once it answers")
    mesh.delete("Namespace", where)
    until(lambda: not mesh.all("Pod", where) and not mesh.all("Service", where), "all in the namespace goes")


def test_deployments_and_their_end(mesh: LocalMesh) -> None:
    where = space(mesh, "deploy")
    mesh.apply(
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {where}}}\n"
        "spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},"
        " spec: {containers: [{name: main, image: ambit/echo}]}}}\n"
    )

    def nodes() -> list[str]:
        found = mesh.all("Pod", where)
        return sorted(each["spec"].get("nodeName", "") for each in found if mesh.ready(each["metadata"]["name"], where))

    until(lambda: nodes() == ["node1", "node2"], "one is ready on each node")
    mesh.delete("Deployment", "web", where)
    until(lambda: not mesh.all("Pod", where), "its pods go")
    mesh.delete("Namespace", where)


# --- the mesh


def test_the_same_pods_in_and_out_of_the_mesh(mesh: LocalMesh) -> None:
    """Live, in both directions: no process starts anew, and the words on the wire come and go."""
    where = space(mesh, "live")
    for name, node in (("client", "node1"), ("server", "node2")):
        pod(mesh, name, where, f"{{nodeName: {node}, containers: [{{name: main, image: ambit/echo}}]}}")
    until(lambda: mesh.ready("client", where) and mesh.ready("server", where), "the pods are ready")
    started = [mesh.status(name, where)["containerStatuses"] for name in ("client", "server")]
    for ambient in (True, False):
        mesh.label(where, DATAPLANE_MODE, "ambient" if ambient else None)
        _wait_for_redirection(mesh, where, "enabled" if ambient else None)
        assert _in_clear(mesh, where) is not ambient
    assert started == [mesh.status(name, where)["containerStatuses"] for name in ("client", "server")]
    mesh.delete("Namespace", where)


def test_the_first_packet_of_a_new_pod_is_not_in_clear(mesh: LocalMesh) -> None:
    """Its container dials as the first thing that it does; whether or not that succeeds, nobody can read it."""
    where = space(mesh, "newborn", ambient=True)
    target = mesh.address("two", "play")
    program = (
        f"import socket, time\ns = socket.create_connection(({target!r}, 9090), 5)\ns.send(b'first-words')\n"
        "print(s.getpeername(), flush=True)\ntime.sleep(600)"
    )
    pod(mesh, "server", where, "{nodeName: node2, containers: [{name: main, image: ambit/echo}]}")
    until(lambda: mesh.ready("server", where), "the server is ready")
    assert _redirection(mesh, "server", where) == "enabled"
    inner = program.replace(target, mesh.address("server", where))
    with watch(mesh) as seen:
        command = f"[/usr/bin/python3, -c, {inner!r}]"
        mesh.apply(
            f"apiVersion: v1\nkind: Pod\nmetadata: {{name: client, namespace: {where}}}\n"
            f"spec: {{nodeName: node1, containers: [{{name: main, command: {command}}}]}}\n".replace("\\n", "\\n")
        )
        until(lambda: "9090" in "".join(api.read_logs(where, "client")), "the client has connected")
        until(lambda: seen.tls_records > 1, "something went over the underlay")
    assert not seen.in_clear(b"first-words")
    mesh.delete("Namespace", where)


def _wait_for_redirection(mesh: LocalMesh, where: str, wanted: str | None) -> None:
    for name in ("client", "server"):
        until(lambda name=name: _redirection(mesh, name, where) == wanted, f"{name} is {wanted}")  # type: ignore[misc]


def _redirection(mesh: LocalMesh, name: str, where: str) -> str | None:
    found = mesh.get("Pod", name, where)
    annotation: str | None = found["metadata"].get("annotations", {}).get(REDIRECTION) if found else None
    return annotation


def _in_clear(mesh: LocalMesh, where: str) -> bool:
    target = mesh.address("server", where)
    with watch(mesh) as seen:
        answer = mesh.ask(where, "client", f"http://{target}:8080/some-words")
    assert answer.startswith(f"server on node2 sees {mesh.address('client', where)}:"), answer
    return seen.in_clear(b"some-words")
