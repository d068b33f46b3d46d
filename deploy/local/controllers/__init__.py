"""What a Kubernetes control plane does around a mesh, as far as a mesh on one machine needs it. Each is pure:
objects in, actions out; `loop` carries the actions out."""
