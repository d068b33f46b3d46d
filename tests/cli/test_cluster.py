"""The commands against a real API server, kubelet and containerd: port-forward, exec and RBAC as they are.

The pods are not Ambit's but Python servers of this machine that answer on the same loopback ports: so this needs no
images of Ambit, and nothing of it can be the reason when a question fails.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.ambit import Done, ambit, dump
from tests.cluster import images
from tests.cluster.fixture import running, unusable
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN, Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/ambit-test-python:dev"
SPACE = "mesh"
SERVER = """
import http.server, json, os, sys
port, answers = int(sys.argv[1]), json.loads(os.environ["ANSWERS"])
for answer in answers.values():
    answer["services"] = answer.get("services", []) * 5000
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps(answers.get(self.path)).encode()
        self.send_response(200 if self.path in answers else 404)
        self.end_headers()
        self.wfile.write(text)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, each with a pod of a DaemonSet ambit-node, and a controller."""
    if reason := unusable():
        pytest.skip(reason)
    with running("ambit-test-cli") as made:
        place = tmp_path_factory.mktemp("image")
        _load_python(made, place)
        _kubectl(made, "create", "namespace", SPACE)
        _kubectl(made, "apply", "-f", "-", stdin=yaml.safe_dump_all(_manifests()))
        for owner in ("daemonset/ambit-node", "deployment/ambit-controller"):
            _kubectl(made, "-n", SPACE, "rollout", "status", owner, "--timeout=90s")
        yield made


@pytest.fixture
def on_cluster(cluster: Cluster, tmp_path: Path) -> Callable[..., Done]:
    return lambda *words: ambit(*words, "--system-namespace", SPACE, home=tmp_path, KUBECONFIG=str(cluster.kubeconfig))


def test_status_reads_every_node(on_cluster: Callable[..., Done]) -> None:
    report = json.loads(on_cluster("status", "-o", "json").stdout)
    assert [(node["name"], node["ztunnel"], node["synced"]) for node in report["nodes"]] == [
        ("node1", "ready", "yes"),
        ("node2", "ready", "not connected"),
    ]
    assert all(part["running"] for part in report["parts"].values())
    assert report["problems"] == []


def test_a_large_dump_comes_whole(on_cluster: Callable[..., Done]) -> None:
    found = json.loads(on_cluster("zc", "service", "-o", "json").stdout)
    assert {node: len(services) for node, services in found.items()} == {"node1": 5000, "node2": 5000}


def test_a_port_where_nobody_listens(on_cluster: Callable[..., Done]) -> None:
    done = on_cluster("zc", "connections", "--node", "node2")
    assert done.returncode == 1
    assert done.stderr == "ambit: ztunnel of node2 does not answer on 127.0.0.1:15000: HTTP 404: null\n"


def test_the_agents_report_or_its_last_words(on_cluster: Callable[..., Done]) -> None:
    """The real ebpf.report, on nodes where nothing is loaded."""
    done = on_cluster("ebpf", "status")
    assert done.returncode == 1
    missing = "no eBPF programs are loaded at /sys/fs/bpf/ambit: run the loader first"
    assert done.stderr.splitlines() == [
        f"ambit: the agent of {node} does not answer: {missing}" for node in ("node1", "node2")
    ]


def test_who_may_only_read_is_told_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    _kubectl(cluster, "create", "serviceaccount", "reader")
    _kubectl(cluster, "create", "clusterrolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader")
    done = _as_token(cluster, tmp_path, _kubectl(cluster, "create", "token", "reader").strip())
    assert done.returncode == 1
    assert "node2  not answering" in done.stdout
    told = [line for line in done.stdout.splitlines() if "no right to port-forward" in line]
    assert len(told) == 1
    assert 'User "system:serviceaccount:default:reader" cannot' in told[0]


def test_a_token_that_is_not_accepted(cluster: Cluster, tmp_path: Path) -> None:
    done = _as_token(cluster, tmp_path, "nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert "have expired; sign in again" in done.stderr


def _as_token(cluster: Cluster, tmp_path: Path, token: str) -> Done:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return ambit("status", "--system-namespace", SPACE, "--kubeconfig", str(path), home=tmp_path)


def _kubectl(cluster: Cluster, *words: str, stdin: str | None = None) -> str:
    command = [str(BIN / "kubectl"), "--kubeconfig", str(cluster.kubeconfig), *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=120).stdout


def _load_python(cluster: Cluster, place: Path) -> None:
    """An image of a few links: what they lead to is mounted from this machine."""
    root = place / "root"
    (root / "ambit/bin").mkdir(parents=True)
    (root / "ambit/bin/python").symlink_to("/usr/bin/python3")
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    archive = place / "python.tar"
    make_image(archive, IMAGE, ["python"], {"/": root})
    images.load(cluster, archive)


def _manifests() -> Iterator[dict[str, object]]:
    services = [{"namespace": "shop", "name": "web", "vips": ["/10.96.0.1"]}]  # of which the server makes many
    types = {"Address": {"acknowledged": "v1", "waiting": False, "rejection": ""}}
    ztunnels = [{"node": "node1", "peer": "", "types": types}]
    node = _container("ztunnel", 15000, {"/config_dump": {**dump("node1"), "services": services}})
    agent = _container("agent", 15022, {})
    yield _owner("DaemonSet", "ambit-node", [node, agent], {"hostNetwork": True})
    controller = _container("controller", 15014, {"/status": {"problems": [], "files": [], "ztunnels": ztunnels}})
    yield _owner("Deployment", "ambit-controller", [controller], {})


def _container(name: str, port: int, answers: dict[str, object]) -> dict[str, object]:
    mounts = [("usr", "/usr"), ("project", "/project")]
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/python3", "-c", SERVER, str(port)],
        "env": [
            {"name": "PATH", "value": "/ambit/bin:/usr/bin"},
            {"name": "PYTHONPATH", "value": "/project"},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            {"name": "ANSWERS", "value": json.dumps(answers)},
        ],
        "volumeMounts": [{"name": volume, "mountPath": path, "readOnly": True} for volume, path in mounts],
    }


def _owner(kind: str, name: str, containers: list[object], more: dict[str, object]) -> dict[str, object]:
    volumes = [
        {"name": volume, "hostPath": {"path": path}} for volume, path in (("usr", "/usr"), ("project", str(ROOT)))
    ]
    pod = {**more, "containers": containers, "volumes": volumes, "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": SPACE}, "spec": spec}
