"""Archives of images, loaded into every node's containerd: there is no registry."""

from __future__ import annotations

import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster import processes
from tests.cluster.commands import run
from tests.cluster.image_archive import CONTAINERD_NAME, REFERENCE
from tests.cluster.nodes import entering, on_node
from tests.cluster.plan import Cluster, Node

CTR = ("ctr", "--namespace=k8s.io", "images")
INDEXES = ("manifest.json", "index.json")  # docker's and OCI's; an archive may have both


def load(cluster: Cluster, archive: Path) -> list[str]:
    """Load the archive's image on every node, under its name, which is returned. Raises ValueError as `names`."""
    found = names(archive)
    for node in cluster.nodes:
        load_on(node, archive, found)
    return found


def load_on(node: Node, archive: Path, found: list[str]) -> None:
    run(*entering(node), *CTR, "import", *_naming(archive, found), "-", source=archive)
    for name in found:
        processes.wait(f"kubelet of {node.name} may use {name}", partial(_known, node, name))


def _known(node: Node, name: str) -> bool:
    """The CRI plugin marks what it has taken note of; before that, a pod would try to pull it."""
    return "io.cri-containerd.image=managed" in on_node(node, *CTR, "list", f"name=={name}")


def _naming(archive: Path, found: list[str]) -> list[str]:
    """containerd puts a date in front of names that only OCI's own annotation says: those it is told otherwise."""
    described = json.dumps(_described(archive))
    if CONTAINERD_NAME in described or "RepoTags" in described:
        return []
    if len(found) > 1:
        raise ValueError(f"{archive}: has several images ({', '.join(found)}); load an archive of each")
    return ["--base-name", "none", "--index-name", found[0]]


def names(archive: Path) -> list[str]:
    """The images in an OCI or docker archive. Raises ValueError when it is neither, or its image has no name."""
    described = _described(archive)
    if not described:
        raise ValueError(f"{archive}: neither a docker nor an OCI archive (no {' or '.join(INDEXES)} in it)")
    found = [name for index in described[:1] for name in _noted(index)]
    if not found or any(":" not in name for name in found):
        raise ValueError(f"{archive}: its image needs a whole name such as localhost/app:dev, has {found or 'none'}")
    return [_normalized(name) for name in found]


def _described(archive: Path) -> list[Any]:
    """The parsed indexes that the archive has, docker's first."""
    with tarfile.open(archive) as tar:
        members = {name.removeprefix("./"): name for name in tar.getnames()}
        opened = [tar.extractfile(members[name]) for name in INDEXES if name in members]
        return [json.load(file) for file in opened if file]


def _noted(index: Any) -> list[str]:
    if isinstance(index, list):
        return [name for image in index for name in image.get("RepoTags") or []]
    notes = [manifest.get("annotations") or {} for manifest in index["manifests"]]
    return [name for note in notes if (name := note.get(CONTAINERD_NAME) or note.get(REFERENCE))]


def _normalized(name: str) -> str:
    """As kubelet spells what a pod asks for: no registry means docker.io, no folder there means library."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"
