"""Tells the mesh to its ztunnels: delta xDS over gRPC."""
