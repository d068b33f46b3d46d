"""The CNI plugin `ambit-cni` (C) and what puts it into a node's CNI chain. README.md has the protocol."""
