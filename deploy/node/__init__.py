"""The node agent: makes what is captured on this node equal to what the labels say. The same in every home."""
