"""`ambit install`, `upgrade`, `uninstall` and `check`: Ambit on a Kubernetes cluster."""
