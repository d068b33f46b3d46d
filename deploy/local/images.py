"""The images that local mode has built in. Any other image needs a `command` that exists on this machine."""

from __future__ import annotations

import sys

_APPS = {
    "ambit/echo": ("deploy.local.apps.echo",),  # HTTP and TCP echo that says who it is and whom it sees
    "ambit/client": ("deploy.local.apps.client",),  # asks a URL again and again and prints the answers
}


def built_in(image: str) -> list[str] | None:
    """The command of a built-in image, whatever its tag; None for any other image."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    name = head if colon and "/" not in tag else name
    module = _APPS.get(name.removeprefix("docker.io/"))
    return [sys.executable, "-m", *module] if module else None


def names() -> list[str]:
    return sorted(_APPS)
