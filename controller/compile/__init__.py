"""Kubernetes objects to the state of the mesh: pure, and as little as an event calls for."""
