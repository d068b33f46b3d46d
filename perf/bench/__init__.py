"""The byte path, measured: no mesh, Ambit, Envoy and HAProxy in turn, on the same two nodes of a local mesh."""
