"""Ambit installed from its chart on a real two-node Kubernetes, as its users have it."""
