"""Runs the demo on a Kubernetes of its own. Exit status 0: all proved."""

from __future__ import annotations

import sys

from cli.demo.kubernetes.cluster import Cluster
from cli.demo.kubernetes.story import KubernetesStory
from cli.demo.shell import Shell
from cli.demo.telling import prepared, told

NAME = "ambit-demo-kube"  # a cluster of its own: others here, and the mesh of `make demo`, are not touched


def main() -> int:
    cluster = Cluster(NAME)
    return prepared(lambda shell: prepare(shell, cluster)) or told(
        lambda shell, ledger: KubernetesStory(shell, ledger, cluster).tell(), cluster.down
    )


def prepare(shell: Shell, cluster: Cluster) -> None:
    """Raises CommandFailed."""
    shell.open(*cluster.command("build"))  # minutes, when it is the first time: it says what it compiles
    shell.unseen(*cluster.command("down"))  # what an earlier demo may have left; not what another one works with


if __name__ == "__main__":
    sys.exit(main())
