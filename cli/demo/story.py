"""The chapters of the story of a label: plain text, then the same pods in the mesh, then plain text again."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.errors import CommandFailed
from cli.packets import PacketWatch, Seen
from deploy.local import namespaces
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE

CATALOG = "http://catalog.shop.svc.cluster.local"
LABELLED = "The namespace gets the label"
# A client that keeps one connection open and sends a request whenever it is told to: it notices any cut.
KEEP_TALKING = """
import socket, sys
line = socket.create_connection(("catalog.shop", 80), 10).makefile("rw", newline="")
for word in sys.stdin:
    line.write(f"GET /{word.strip()} HTTP/1.1\\r\\nHost: catalog.shop\\r\\n\\r\\n"); line.flush()
    status = line.readline().strip(); size = 0
    while (head := line.readline().strip()):
        name, _, value = head.partition(":")
        size = int(value) if name.lower() == "content-length" else size
    line.read(size); print(status, flush=True)
"""

Talker = subprocess.Popen[str]
Containers = Mapping[str, tuple[str, str, int]]  # by pod and name: id, when it was started, how often before


@dataclass(frozen=True)
class Place:
    """Where the story is told: what comes before `exec`, `get` and `label`, the network namespace (a file) through
    which the nodes reach each other, and how `exec` hands on its standard input."""

    command: tuple[str, ...]
    underlay: Path
    exec_with_input: tuple[str, ...] = ("exec",)


class Story:
    def __init__(self, shell: Shell, ledger: Ledger, place: Place) -> None:
        self.shell, self.ledger, self.place = shell, ledger, place

    # --- chapters

    def prove_both_nodes(self) -> None:
        pods = self.pods("shop")
        nodes = {pod["spec"]["nodeName"] for pod in pods}
        evidence = f"{len(pods)} pods on {', '.join(sorted(nodes))}"
        self.ledger.note("the shop runs on both nodes", len(nodes) == 2, evidence)

    def talk_in_plain_text(self) -> None:
        self.ledger.begin("Apps talk in plain text across the nodes")
        secret, answer, seen = self.watched_call()
        self.ledger.note("web reaches catalog through its Service", secret in answer, CATALOG)
        self.ledger.note(
            "anybody on the underlay can read it",
            seen.in_clear(secret.encode()),
            f"{secret} read in {seen.packets} packets",
        )

    def label(self, title: str = LABELLED) -> None:
        self.ledger.begin(title)
        self.run("label", "namespace", "shop", f"{DATAPLANE_MODE}={AMBIENT}")
        print(indented(self.run("get", "pods", "-n", "shop")))

    def talk_over_mutual_tls(self) -> None:
        self.ledger.begin("The same running pods talk over mutual TLS")
        secret, answer, seen = self.watched_call()
        self.ledger.note("web still reaches catalog through its Service", secret in answer, CATALOG)
        self.ledger.note(
            "no byte of it is in clear on the underlay",
            not seen.in_clear(secret.encode()),
            f"{seen.packets} packets searched",
        )
        self.ledger.note("it went as TLS records to port 15008", seen.tls_records > 0, f"{seen.tls_records} records")

    def prove_nothing_restarted(self, before: Containers) -> None:
        now = self.containers()
        evidence = f"the same {len(now)} containers, by id, start time and restart count"
        self.ledger.note("no container was restarted", now == before, evidence)

    def prove_identities(self) -> None:
        self.ledger.begin("Both sides of each connection proved who they are")
        ask(self.begin_to_talk(), "identity")
        shown = self.shell.run("ambit", "ztunnel-config", "connections")
        print(indented(shown))
        wanted = {f"spiffe://cluster.local/ns/shop/sa/{account}" for account in ("web", "catalog")}
        self.ledger.note(
            "the two SPIFFE identities are web's and catalog's",
            all(each in shown for each in wanted),
            ", ".join(sorted(wanted)),
        )

    def reach_from_outside(self) -> None:
        self.ledger.begin("A pod outside the mesh still reaches it")
        secret, answer, _seen = self.watched_call(source="visitor", namespace="outside")
        self.ledger.note("visitor, in plain text, reaches catalog", secret in answer, "namespace outside has no label")

    def unlabel(self) -> None:
        self.ledger.begin("The label goes")
        self.run("label", "namespace", "shop", f"{DATAPLANE_MODE}-")

    def talk_in_plain_text_again(self) -> None:
        secret, answer, seen = self.watched_call()
        self.ledger.note("web reaches catalog", secret in answer, CATALOG)
        self.ledger.note("it is plain text again", seen.in_clear(secret.encode()), f"{secret} read on the underlay")

    # --- means

    def run(self, *words: str) -> str:
        return self.shell.run(*self.place.command, *words)

    def watch(self) -> PacketWatch:
        return PacketWatch(lambda work: namespaces.inside(self.place.underlay, work))

    def watched_call(self, source: str = "deploy/web", namespace: str = "shop") -> tuple[str, str, Seen]:
        """One request with a fresh secret in it, and what the underlay saw meanwhile."""
        secret = fresh_secret()
        with self.watch() as seen:
            answer = self.run(
                "exec", source, "-n", namespace, "--", "curl", "-sS", "--max-time", "10", f"{CATALOG}/{secret}"
            )
        return secret, answer, seen

    def begin_to_talk(self) -> Talker:
        return self.python_in_web("-c", KEEP_TALKING)

    def python_in_web(self, *arguments: str) -> Talker:
        words = (*self.place.exec_with_input, "deploy/web", "-n", "shop", "--", "python3", *arguments)
        return self.shell.background(*self.place.command, *words)

    def say(self, talker: Talker, word: str, claim: str) -> None:
        status = ask(talker, word)
        self.ledger.note(claim, " 200 " in f"{status} ", status)

    def pods(self, namespace: str) -> list[Any]:
        listed = json.loads(self.shell.unseen(*self.place.command, "get", "pods", "-n", namespace, "-o", "json"))
        return list(listed["items"])

    def containers(self) -> Containers:
        """Those of the shop. Raises CommandFailed when there are none."""
        found = {}
        for pod in self.pods("shop"):
            for state in pod["status"]["containerStatuses"]:
                name = f"{pod['metadata']['name']}/{state['name']}"
                found[name] = (state["containerID"], state["state"]["running"]["startedAt"], state["restartCount"])
        if not found:
            raise CommandFailed("the shop has no containers")
        return found


def fresh_secret() -> str:
    return f"secret-{secrets.token_hex(8)}"


def ask(talker: Talker, word: str) -> str:
    """What it says next; "" when it has ended."""
    assert talker.stdin
    assert talker.stdout
    try:
        talker.stdin.write(word + "\n")
        talker.stdin.flush()
    except BrokenPipeError:
        return ""
    return talker.stdout.readline().strip()


def indented(text: str) -> str:
    return "\n".join(f"     {line}" for line in text.splitlines())
