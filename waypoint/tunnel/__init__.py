"""HBONE tunnels on asyncio: TCP, TLS in memory, and mesh.hbone's streams as channels."""
