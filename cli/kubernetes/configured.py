"""Whether this user has a Kubernetes at all; asked before the package is loaded."""

from __future__ import annotations

import os
from pathlib import Path

IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
KUBECONFIG = "KUBECONFIG"
DEFAULT_KUBECONFIG = Path("~/.kube/config")


def is_configured() -> bool:
    return has_kubeconfig() or is_in_cluster()


def has_kubeconfig() -> bool:
    """$KUBECONFIG or ~/.kube/config, as kubectl has it."""
    return bool(os.environ.get(KUBECONFIG)) or DEFAULT_KUBECONFIG.expanduser().exists()


def kubeconfigs() -> str:
    """The files to read, as $KUBECONFIG has them: joined by colons."""
    return os.environ.get(KUBECONFIG) or str(DEFAULT_KUBECONFIG.expanduser())


def is_in_cluster() -> bool:
    """We are in a pod, with its service account."""
    return bool(os.environ.get(IN_CLUSTER))
