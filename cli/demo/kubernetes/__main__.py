"""Runs the demo on a Kubernetes of its own. Exit status 0: all proved."""

from __future__ import annotations

import sys

from cli.demo.kubernetes.cluster import Cluster
from cli.demo.kubernetes.story import KubernetesStory
from cli.demo.shell import Shell
from cli.demo.telling import told
from cli.errors import CommandFailed, warn

NAME = "ambit-demo-kube"  # a cluster of its own: others here, and the mesh of `make demo`, are not touched


def main() -> int:
    cluster, shell = Cluster(NAME), Shell()
    try:
        shell.open(*cluster.command("build"))  # minutes, when it is the first time: it says what it compiles
        shell.unseen(*cluster.command("down"))  # what an earlier demo may have left; not what another one works with
    except CommandFailed as problem:
        warn(str(problem))
        return 1
    return told(lambda shell, ledger: KubernetesStory(shell, ledger, cluster).tell(), cluster.down)


if __name__ == "__main__":
    sys.exit(main())
