"""requirements.py node|controller PYPROJECT: what pip shall install into an image, with the ranges of pyproject.toml.

Each image names the packages that it imports; all else that pyproject.toml lists is for other places.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOTH = (
    "aiohttp",
    "cryptography",
    "grpcio",
    "hpack",
    "kubernetes",
    "msgspec",
    "prometheus-client",
    "protobuf",
    "pyyaml",
)
IMAGES = {
    "node": (*BOTH, "dnslib", "pyroute2", "uvloop"),
    "controller": (*BOTH, "pyjwt", "uvloop"),
}


def name_of(requirement: str) -> str:
    """The package of "name>=1,<2", as pip compares names."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def chosen(project: Mapping[str, Any], image: str) -> list[str]:
    """The requirements of an image. Raises KeyError: there is no such image."""
    wanted = IMAGES[image]
    return [each for each in project["project"]["dependencies"] if name_of(each) in wanted]


def main() -> None:
    image, pyproject = sys.argv[1:]
    print("\n".join(chosen(tomllib.loads(Path(pyproject).read_text()), image)))


if __name__ == "__main__":
    main()
