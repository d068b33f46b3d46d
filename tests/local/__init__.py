"""Local mode: its decisions, and small real meshes."""
