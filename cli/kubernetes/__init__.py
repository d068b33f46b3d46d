"""The mesh on Kubernetes as a home of the CLI: everything goes through the API server, as with kubectl."""
