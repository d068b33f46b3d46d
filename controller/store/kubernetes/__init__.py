"""The store in a Kubernetes API server."""

from controller.store.kubernetes.store import KubernetesStore

__all__ = ["KubernetesStore"]
