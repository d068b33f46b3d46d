"""The demo's Kubernetes: `python -m tests.cluster` of the sources, used by its commands as anybody would."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cli.demo.kubernetes.traces import Node
from cli.demo.shell import Shell
from cli.errors import CommandFailed

NAMED_NETNS = Path("/run/netns")
NODES = ("node1", "node2")
# What the cluster's users have in their environment; the process holds the cluster's lock until its input ends.
HOLD = 'echo "$KUBECONFIG"; echo "$PATH"; exec cat'


class Cluster:
    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *words: str) -> tuple[str, ...]:
        return ("python", "-m", "tests.cluster", "--name", self.name, *words)

    def up(self, shell: Shell) -> None:
        """Two nodes; from then on kubectl and helm are there and mean this cluster. Raises CommandFailed."""
        shell.open(*self.command("up", "--nodes", str(len(NODES))))
        holder = shell.background(*self.command("hold", "--", "sh", "-c", HOLD))
        assert holder.stdout
        found = [holder.stdout.readline().strip() for _ in ("KUBECONFIG", "PATH")]
        if not all(found):
            raise CommandFailed(f"somebody else works with the cluster {self.name}")
        os.environ["KUBECONFIG"], os.environ["PATH"] = found

    def down(self, shell: Shell) -> None:
        shell.quiet(*self.command("down"))

    @property
    def underlay(self) -> Path:
        return NAMED_NETNS / f"{self.name}-underlay"

    def node(self, shell: Shell, name: str) -> Node:
        return Node.of(name, json.loads(shell.unseen(*self.command("paths", name, "--json"))))
