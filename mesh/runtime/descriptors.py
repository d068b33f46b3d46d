"""File descriptors that a process may have."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """To the hard limit: the soft one of 1024 is for programs that use select(). Connections cost two or more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
