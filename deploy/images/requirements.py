"""requirements.py node|controller|waypoint|compiler PYPROJECT: what pip shall install, in pyproject.toml's ranges.

Each image names the packages that it imports, `compiler` what makes the compiled byte path; all else that
pyproject.toml lists is for other places.
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
    "controller": (*BOTH, "google-re2", "pyjwt", "uvloop"),
    "waypoint": ("cryptography", "google-re2", "hpack", "msgspec", "prometheus-client", "protobuf", "uvloop"),
}
STAGES = {"compiler": ("grpc-stubs", "mypy", "setuptools", "types-protobuf", "types-pyyaml")}


def name_of(requirement: str) -> str:
    """The package of "name>=1,<2", as pip compares names."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def chosen(pyproject: Mapping[str, Any], image: str) -> list[str]:
    """The requirements of an image or stage. Raises KeyError: there is no such one."""
    wanted = {**IMAGES, **STAGES}[image]
    listed = pyproject["project"]["dependencies"]
    if image in STAGES:
        listed = [*pyproject["build-system"]["requires"], *pyproject["project"]["optional-dependencies"]["dev"]]
    return [each for each in listed if name_of(each) in wanted]


def main() -> None:
    image, pyproject = sys.argv[1:]
    print("\n".join(chosen(tomllib.loads(Path(pyproject).read_text()), image)))


if __name__ == "__main__":
    main()
