"""The story of a label: plain text, then the same pods in the mesh, then plain text again."""

from __future__ import annotations

import json
import secrets
from typing import Any

from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.errors import CommandFailed
from cli.packets import PacketWatch, Seen
from deploy.local import namespaces
from deploy.local.paths import Instance
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE

CATALOG = "http://catalog.shop.svc.cluster.local"
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


class Story:
    def __init__(self, shell: Shell, ledger: Ledger) -> None:
        self._shell, self._ledger = shell, ledger

    def tell(self) -> None:
        self.bring_up()
        self.talk_in_plain_text()
        before = self.processes()
        talker = self._shell.background(
            "local", "exec", "deploy/web", "-n", "shop", "--", "python3", "-c", KEEP_TALKING
        )
        self.say(talker, "before", "a connection stands before the label comes")
        self.label()
        self.talk_over_mutual_tls()
        self.prove_nothing_restarted(before)
        self.say(talker, "labelled", "the connection that stood before the label goes on")
        self.prove_identities()
        self.reach_from_outside()
        meshed = self._shell.background(
            "local", "exec", "deploy/web", "-n", "shop", "--", "python3", "-c", KEEP_TALKING
        )
        self.say(meshed, "meshed", "a new connection takes the new path")
        self.unlabel()
        self.talk_in_plain_text_again()
        self.say(meshed, "unlabelled", "the connection made in the mesh goes on without the label")
        self.say(talker, "unlabelled", "and so does the oldest one")
        self.prove_same_processes(before)

    # --- steps

    def bring_up(self) -> None:
        self._ledger.begin("A mesh of two nodes, and a small shop on it")
        self._shell.ambit("local", "up", "--nodes", "2")
        self._shell.ambit("local", "apply", "-f", "examples/shop", "--wait")
        pods = self.pods("shop")
        nodes = {pod["spec"]["nodeName"] for pod in pods}
        self._ledger.note(
            "the shop runs on both nodes", len(nodes) == 2, f"{len(pods)} pods on {', '.join(sorted(nodes))}"
        )

    def talk_in_plain_text(self) -> None:
        self._ledger.begin("Apps talk in plain text across the nodes")
        secret, answer, seen = self.watched_call()
        self._ledger.note("web reaches catalog through its Service", secret in answer, CATALOG)
        self._ledger.note(
            "anybody on the underlay can read it",
            seen.in_clear(secret.encode()),
            f"{secret} read in {seen.packets} packets",
        )

    def label(self) -> None:
        self._ledger.begin("The namespace gets the label")
        self._shell.ambit("local", "label", "namespace", "shop", f"{DATAPLANE_MODE}={AMBIENT}")
        print(_indented(self._shell.ambit("local", "get", "pods", "-n", "shop")))

    def talk_over_mutual_tls(self) -> None:
        self._ledger.begin("The same running pods talk over mutual TLS")
        secret, answer, seen = self.watched_call()
        self._ledger.note("web still reaches catalog through its Service", secret in answer, CATALOG)
        self._ledger.note(
            "no byte of it is in clear on the underlay",
            not seen.in_clear(secret.encode()),
            f"{seen.packets} packets searched",
        )
        self._ledger.note("it went as TLS records to port 15008", seen.tls_records > 0, f"{seen.tls_records} records")

    def prove_nothing_restarted(self, before: dict[str, Any]) -> None:
        now = self.processes()
        self._ledger.note(
            "no container was restarted", now == before, f"the same {len(now)} processes, by id and start time"
        )

    def prove_same_processes(self, before: dict[str, Any]) -> None:
        self.prove_nothing_restarted(before)

    def prove_identities(self) -> None:
        self._ledger.begin("Both sides of each connection proved who they are")
        holder = self._shell.background(
            "local", "exec", "deploy/web", "-n", "shop", "--", "python3", "-c", KEEP_TALKING
        )
        _ask(holder, "identity")
        shown = self._shell.ambit("ztunnel-config", "connections")
        print(_indented(shown))
        wanted = {f"spiffe://cluster.local/ns/shop/sa/{account}" for account in ("web", "catalog")}
        self._ledger.note(
            "the two SPIFFE identities are web's and catalog's",
            all(each in shown for each in wanted),
            ", ".join(sorted(wanted)),
        )

    def reach_from_outside(self) -> None:
        self._ledger.begin("A pod outside the mesh still reaches it")
        secret, answer, _seen = self.watched_call(source="visitor", namespace="outside")
        self._ledger.note("visitor, in plain text, reaches catalog", secret in answer, "namespace outside has no label")

    def unlabel(self) -> None:
        self._ledger.begin("The label goes")
        self._shell.ambit("local", "label", "namespace", "shop", f"{DATAPLANE_MODE}-")

    def talk_in_plain_text_again(self) -> None:
        secret, answer, seen = self.watched_call()
        self._ledger.note("web reaches catalog", secret in answer, CATALOG)
        self._ledger.note("it is plain text again", seen.in_clear(secret.encode()), f"{secret} read on the underlay")

    # --- means

    def watched_call(self, source: str = "deploy/web", namespace: str = "shop") -> tuple[str, str, Seen]:
        """One request with a fresh secret in it, and what the underlay saw meanwhile."""
        secret = f"secret-{secrets.token_hex(8)}"
        with PacketWatch(lambda work: namespaces.inside(Instance.current().underlay, work)) as seen:
            answer = self._shell.ambit(
                "local", "exec", source, "-n", namespace, "--", "curl", "-sS", "--max-time", "10", f"{CATALOG}/{secret}"
            )
        return secret, answer, seen

    def say(self, talker: Any, word: str, claim: str) -> None:
        status = _ask(talker, word)
        self._ledger.note(claim, " 200 " in f"{status} ", status)

    def pods(self, namespace: str) -> list[Any]:
        listed = json.loads(self._shell.attempt("local", "get", "pods", "-n", namespace, "-o", "json") or "{}")
        return list(listed.get("items", []))

    def processes(self) -> dict[str, Any]:
        """Each container of the shop, by its id and when it was started."""
        found = {}
        for pod in self.pods("shop"):
            for state in pod["status"]["containerStatuses"]:
                name = f"{pod['metadata']['name']}/{state['name']}"
                found[name] = (state.get("containerID"), state["state"]["running"]["startedAt"], state["restartCount"])
        if not found:
            raise CommandFailed("the shop has no containers")
        return found


def _ask(talker: Any, word: str) -> str:
    talker.stdin.write(word + "\n")
    talker.stdin.flush()
    return str(talker.stdout.readline().strip())


def _indented(text: str) -> str:
    return "\n".join(f"     {line}" for line in text.splitlines())
