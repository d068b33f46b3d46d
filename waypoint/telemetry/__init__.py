"""What became of requests and connections: Istio's metrics, and one line each in the access log."""
