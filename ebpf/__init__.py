"""The kernel's side of the mesh: programs that capture a pod's connections, and their handling from user space."""
