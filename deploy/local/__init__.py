"""Local mode: a whole mesh of real processes on one Linux machine, in namespaces, without Kubernetes."""
