"""The story on a two-node Kubernetes, with what only a cluster can show: the chart, annotations, a dead ztunnel."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cli.demo.kubernetes.cluster import NODES, Cluster
from cli.demo.kubernetes.traces import traces
from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.demo.story import CATALOG, LABELLED, Place, Story, Talker, fresh_secret, indented
from cli.errors import CommandFailed
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION, REDIRECTION_ENABLED

IMAGES = ("node", "controller", "waypoint", "echo")
ARCHIVES = "build/images"
SYSTEM = "ambit-system"
CALLERS = (("deploy/web", "shop"), ("visitor", "outside"))
CLUSTER_IP = "jsonpath={.spec.clusterIP}"
PATIENCE = 180.0  # seconds for what happens by itself; it takes two
# A client that asks on a new connection each time, and says whenever the outcome is another than before.
ASK_ANEW = """
import sys, time, urllib.request
shown = None
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5).read(); outcome = "answered"
    except OSError as error:
        outcome = f"refused: {error}"
    if outcome != shown:
        print(outcome, flush=True)
    shown = outcome
    time.sleep(0.02)
"""

Traces = Mapping[str, Mapping[str, str]]


class KubernetesStory(Story):
    def __init__(self, shell: Shell, ledger: Ledger, cluster: Cluster) -> None:
        super().__init__(shell, ledger, Place(("kubectl",), cluster.underlay, ("exec", "-i")))
        self.cluster = cluster

    def tell(self) -> None:
        self.bring_up()
        self.open_shop()
        self.talk_in_plain_text()
        clean, before = self.traces(), self.containers()
        talker = self.begin_to_talk()
        self.say(talker, "before", "a connection stands before Ambit is installed")
        self.install()
        self.label()
        self.prove_annotations()
        self.talk_over_mutual_tls()
        self.prove_nothing_restarted(before)
        self.say(talker, "labelled", "the connection that stood before goes on")
        self.prove_identities()
        self.reach_from_outside()
        self.kill_ztunnel()
        meshed = self.begin_to_talk()
        self.say(meshed, "meshed", "a new connection takes the mesh's path")
        self.unlabel()
        self.talk_in_plain_text_again()
        self.say(meshed, "unlabelled", "the connection made in the mesh goes on without the label")
        self.uninstall(clean)
        self.talk_in_plain_text_again()
        self.say(talker, "uninstalled", "the oldest connection still stands")
        self.prove_nothing_restarted(before)

    # --- chapters

    def bring_up(self) -> None:
        self.ledger.begin("A Kubernetes of two nodes, and images without a registry")
        self.cluster.up(self.shell)
        self.shell.open("python", "deploy/images/build.py", *IMAGES, "--output", ARCHIVES)
        archives = [f"{ARCHIVES}/{image}.tar" for image in IMAGES]
        self.shell.run(*self.cluster.command("load", *archives))
        print(indented(self.run("get", "nodes", "-o", "wide")))

    def open_shop(self) -> None:
        self.ledger.begin("A small shop, before there is a mesh")
        self.run("apply", "-f", "examples/shop")
        self.run("wait", "-n", "shop", "--for=condition=Available", "deployment", "--all", "--timeout=300s")
        self.run("wait", "-n", "outside", "--for=condition=Ready", "pod/visitor", "--timeout=300s")
        # Pods are ready before every node's kube-proxy knows of them: without a mesh that is nobody's fault.
        self.wait_until("the nodes know the Service catalog", lambda: all(self.answers(*each) for each in CALLERS))
        self.prove_both_nodes()

    def install(self) -> None:
        self.ledger.begin("Ambit is installed from its chart, and nothing changes")
        tags = ("--set", "images.node.tag=dev,images.controller.tag=dev,images.waypoint.tag=dev")
        self.shell.run("helm", "install", "ambit", "deploy/helm/ambit", "-n", SYSTEM, "--create-namespace", *tags)
        self.run("-n", SYSTEM, "rollout", "status", "daemonset/ambit-node", "--timeout=300s")
        print(indented(self.run("get", "pods", "-n", SYSTEM)))
        secret, answer, seen = self.watched_call()
        without = secret in answer and seen.in_clear(secret.encode())
        self.ledger.note("without a label apps talk as before", without, f"{secret} read on the underlay")

    def label(self, title: str = LABELLED) -> None:
        super().label(title)
        self.wait_until("every pod of the shop is enrolled", lambda: all(map(_enrolled, self.pods("shop"))))

    def unlabel(self) -> None:
        super().unlabel()
        self.wait_until("no pod of the shop is enrolled", lambda: not any(map(_enrolled, self.pods("shop"))))

    def prove_annotations(self) -> None:
        shown = self.run("get", "pod", "-n", "shop", "-l", "app=web", "-o", "yaml")
        line = next((line.strip() for line in shown.splitlines() if REDIRECTION in line), "no annotation")
        said = all(map(_enrolled, self.pods("shop")))
        self.ledger.note("each pod says that it is in the mesh", said, line)

    def kill_ztunnel(self) -> None:
        self.ledger.begin("ztunnel is killed: refused, not in clear, and back by itself")
        secret = fresh_secret()
        # By its address: else the name would be refused first, and nothing would be shown of connections.
        address = self.shell.unseen("kubectl", "get", "service", "catalog", "-n", "shop", "-o", CLUSTER_IP)
        client = self.python_in_web("-c", ASK_ANEW, f"http://{address}/{secret}")
        with self.watch() as seen, _bounded(client):
            first = _line(client)
            container = self.ztunnel_of("node1")
            kill = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container)
            self.shell.run(*self.cluster.command("exec", "node1", "--", *kill))
            refused, began = _line(client), time.monotonic()
            back = next(line for line in iter(lambda: _line(client), None) if not line.startswith("refused"))
            seconds = time.monotonic() - began
        self.ledger.note("web's connections are answered before", first == "answered", first)
        self.ledger.note("without its ztunnel they are refused", refused.startswith("refused"), refused)
        clear = seen.in_clear(secret.encode())
        self.ledger.note("nothing of it is in clear", not clear, f"{seen.packets} packets searched")
        self.ledger.note("they are answered again by themselves", back == "answered", f"after {seconds:.1f} s")

    def uninstall(self, clean: Traces) -> None:
        self.label("The label once more, and Ambit is uninstalled while the shop is in the mesh")
        self.shell.run("helm", "uninstall", "ambit", "-n", SYSTEM, "--wait")
        now = self.traces()
        left = [f"{name}: {what}" for name in NODES for what, _ in now[name].items() ^ clean[name].items()]
        evidence = ", ".join(left) or "CNI configuration, plugins, pins and attached programs are as they were"
        self.ledger.note("nothing is left on the nodes", not left, evidence)
        marked = [pod["metadata"]["name"] for pod in self.pods("shop") if _enrolled(pod)]
        labels = json.loads(self.shell.unseen("kubectl", "get", "namespace", "shop", "-o", "json"))["metadata"][
            "labels"
        ]
        gone = not marked and DATAPLANE_MODE not in labels
        self.ledger.note("no label and no annotation", gone, ", ".join(marked) or "namespace shop and its pods")
        kinds = "all,configmaps,secrets,leases,roles,rolebindings"
        names = self.shell.unseen("kubectl", "get", kinds, "-n", SYSTEM, "-o", "name").split()
        ours = [name for name in names if "ambit" in name]
        self.ledger.note("no object of Ambit is left", not ours, ", ".join(ours) or f"namespace {SYSTEM} is empty")

    # --- means

    def traces(self) -> Traces:
        return {name: traces(self.cluster.node(self.shell, name)) for name in NODES}

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Raises CommandFailed."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise CommandFailed(f"not so after {PATIENCE:.0f} s: {what}")
            time.sleep(0.1)

    def answers(self, source: str, namespace: str) -> bool:
        """Whether catalog does, when this pod asks."""
        try:
            self.shell.unseen("kubectl", "exec", source, "-n", namespace, "--", "curl", "-sS", "-m", "10", CATALOG)
        except CommandFailed:
            return False
        return True

    def ztunnel_of(self, node: str) -> str:
        """The id of its container."""
        for pod in self.pods(SYSTEM):
            if pod["spec"]["nodeName"] == node and pod["metadata"]["labels"].get("app") == "ambit-node":
                states = {each["name"]: each["containerID"] for each in pod["status"]["containerStatuses"]}
                return str(states["ztunnel"]).partition("://")[2]
        return ""


def _enrolled(pod: Any) -> bool:
    return bool(pod["metadata"].get("annotations", {}).get(REDIRECTION) == REDIRECTION_ENABLED)


def _line(client: Talker) -> str:
    assert client.stdout
    return client.stdout.readline().strip()


@contextmanager
def _bounded(client: Talker) -> Iterator[None]:
    """Whoever waits for its next line gets "" when that takes too long."""
    timer = threading.Timer(PATIENCE, client.terminate)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        client.terminate()
