"""`make demo-kubernetes`: the same story on a real two-node Kubernetes, with kubectl and helm."""
