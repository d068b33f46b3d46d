"""The controller with a large cluster: a thousand Services and ten thousand pods in a real API server."""
