"""The scenarios' pods on a real cluster, with Ambit from its chart around them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cli.packets import PacketWatch
from mesh.model import ports
from mesh.model.enrolment import AMBIENT, REDIRECTION, REDIRECTION_ENABLED, decide
from tests.kube.installed import KubeMesh
from tests.scenarios.home import Running, until
from tests.scenarios.programs import server

PROGRAMS, MOUNTED = Path(__file__).parent / "programs", "/programs"
NAMESPACES = ("meshed", "plain")
Object = dict[str, Any]


class KubernetesHome:
    """A `Home`."""

    bulk = 1 << 28  # a transfer costs the test cluster's two nodes, its control plane and its tests the same processors

    def __init__(self, kube: KubeMesh) -> None:
        self._kube = kube

    def begin(self, manifest: str) -> None:
        self.end()
        self.apply(manifest)
        for namespace in NAMESPACES:
            self._kube.wait_ready(namespace)

    def end(self) -> None:
        self.end_clients()
        self._kube.kubectl("delete", "namespace", *NAMESPACES, "--ignore-not-found", "--timeout=120s")

    # --- objects

    def apply(self, manifest: str) -> None:
        objects = [each for each in yaml.safe_load_all(manifest.replace("PROGRAMS", MOUNTED)) if each]
        made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
        for each in objects:
            if each["kind"] == "Pod":
                self._dress(each)
        objects[len(made) : len(made)] = [self._programs(namespace) for namespace in sorted(made)]
        self._kube.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def delete_pod(self, pod: str) -> None:
        namespace, name = pod.split("/")
        self._kube.kubectl("delete", "pod", name, "-n", namespace)

    def phase(self, pod: str) -> str:
        return str(self._pod(pod)["status"].get("phase"))

    def containers(self, namespace: str) -> list[str]:
        return [status["containerID"] for pod in self._pods(namespace) for status in pod["status"]["containerStatuses"]]

    def label(self, wanted: bool, namespace: str = "meshed") -> None:
        self._kube.label("namespace", namespace, AMBIENT if wanted else None)
        self._settle(namespace)

    def label_pod(self, pod: str, mode: str | None) -> None:
        namespace, name = pod.split("/")
        self._kube.label("pod", name, mode, namespace=namespace)
        self._settle(namespace)

    def redirection(self, pod: str) -> str | None:
        return _redirection(self._pod(pod))

    def address(self, pod: str, v6: bool = False) -> str:
        return _of_family((each["ip"] for each in self._pod(pod)["status"]["podIPs"]), v6)

    def service_address(self, service: str, v6: bool = False) -> str:
        return _of_family(self._kube.service_addresses(service), v6)

    # --- pods

    def client(self, pod: str, habit: str, host: str, port: int, *arguments: Any) -> Any:
        words = ("python3", f"{MOUNTED}/client.py", habit, host, str(port), *map(str, arguments))
        return json.loads(self._kube.exec(pod, *words).splitlines()[-1])

    def start(self, pod: str, habit: str, host: str, port: int) -> Running:
        return self._kube.start(pod, "python3", "-u", f"{MOUNTED}/client.py", habit, host, str(port))

    def end_clients(self) -> None:
        self._kube.end_programs()

    def watch(self) -> PacketWatch:
        return PacketWatch(lambda work: self._kube.within("underlay", work))

    # --- inside

    def _dress(self, pod: Object) -> None:
        """What only a real container needs: an image that has Python, and the programs in it."""
        (container,), spec = pod["spec"]["containers"], pod["spec"]
        container.update(image=f"docker.io/ambit/controller:{self._kube.tag}", imagePullPolicy="IfNotPresent")
        container["volumeMounts"] = [{"name": "programs", "mountPath": MOUNTED}]
        if container["command"][-1].endswith("server.py"):
            container["readinessProbe"] = {"tcpSocket": {"port": server.ECHO}, "periodSeconds": 1}
        spec["volumes"] = [{"name": "programs", "configMap": {"name": "programs"}}]
        spec["terminationGracePeriodSeconds"] = 0

    def _programs(self, namespace: str) -> Object:
        data = {file.name: file.read_text() for file in sorted(PROGRAMS.glob("*.py"))}
        metadata = {"name": "programs", "namespace": namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def _pod(self, pod: str) -> Object:
        namespace, name = pod.split("/")
        found: Object = self._kube.get("pod", name, "-n", namespace)
        return found

    def _pods(self, namespace: str) -> list[Object]:
        found: list[Object] = self._kube.get("pods", "-n", namespace)["items"]
        return found

    def _settle(self, namespace: str) -> None:
        until(lambda: self._is_settled(namespace), f"pods of {namespace} are where their labels want them")

    def _is_settled(self, namespace: str) -> bool:
        labels = self._kube.get("namespace", namespace)["metadata"].get("labels") or {}
        wanted, shown = {}, {}
        for pod in self._pods(namespace):
            metadata = pod["metadata"]
            name = f"Kubernetes//Pod/{namespace}/{metadata['name']}"
            wanted[name] = decide(namespace, labels, metadata.get("labels") or {}, {}, False).wanted
            shown[name] = _redirection(pod) == REDIRECTION_ENABLED
        return wanted == shown and all(self._view(node, wanted) == wanted for node in self._kube.nodes)

    def _view(self, node: str, names: Iterable[str]) -> dict[str, bool]:
        """Which of the pods the node's ztunnel would tunnel to."""
        url = f"http://127.0.0.1:{ports.ADMIN}/config_dump"
        text = self._kube.within(node, lambda: urllib.request.urlopen(url, timeout=10).read())
        known = {each["uid"]: each["protocol"] == "HBONE" for each in json.loads(text)["workloads"]}
        return {name: known.get(name, False) for name in names}


def _redirection(pod: Object) -> str | None:
    found: str | None = (pod["metadata"].get("annotations") or {}).get(REDIRECTION)
    return found


def _of_family(addresses: Iterable[str], v6: bool) -> str:
    return next(each for each in addresses if (":" in each) == v6)
