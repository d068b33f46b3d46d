"""The node agent: enrols the pods of one node into the mesh, live, in both directions. The same in every home."""
