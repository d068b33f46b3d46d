"""`ambit local`: a whole mesh on this machine, from plain Kubernetes manifests."""

from cli.local.commands import app

__all__ = ["app"]
