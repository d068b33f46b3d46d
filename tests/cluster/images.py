"""Images without a registry: made here from files, and loaded into every node's containerd."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from tests.cluster import processes
from tests.cluster.commands import run
from tests.cluster.nodes import entering, on_node
from tests.cluster.plan import Cluster, Node

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY_DIRECTORIES = ("tmp", "etc", "proc", "dev", "sys")
CTR = ("ctr", "--namespace=k8s.io", "images")


def make_image(archive: Path, name: str, entrypoint: Sequence[str], files: Mapping[str, Path]) -> None:
    """Write an OCI archive (image-spec 1.0) of one layer; `files` maps paths in the image to files or directories here.

    A whole root file system is `{"/": directory}`.
    """
    layer = archive.with_suffix(".layer")
    try:
        _write_layer(layer, files)
        layer_digest = _digest_of_file(layer)
        config = _json(_config(entrypoint, layer_digest))
        parts = [_descriptor(CONFIG, _digest(config), len(config))]
        layers = [_descriptor(LAYER, layer_digest, layer.stat().st_size)]
        manifest = _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": layers})
        described = _descriptor(MANIFEST, _digest(manifest), len(manifest))
        described["annotations"] = {REFERENCE: name, CONTAINERD_NAME: name}
        with tarfile.open(archive, "w") as tar:
            _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [described]}))
            _add(tar, f"blobs/sha256/{_digest(config)}", config)
            _add(tar, f"blobs/sha256/{_digest(manifest)}", manifest)
            tar.add(layer, f"blobs/sha256/{layer_digest}")
    finally:
        layer.unlink(missing_ok=True)


def _write_layer(layer: Path, files: Mapping[str, Path]) -> None:
    with tarfile.open(layer, "w") as tar:
        for directory in EMPTY_DIRECTORIES:
            information = tarfile.TarInfo(directory)
            information.type, information.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(information)
        for target, source in files.items():
            tar.add(source, target.strip("/") or ".")


def _config(entrypoint: Sequence[str], layer_digest: str) -> dict[str, object]:
    return {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "config": {"Entrypoint": list(entrypoint), "Env": [PATH]},
    }


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    information = tarfile.TarInfo(name)
    information.size = len(content)
    tar.addfile(information, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(archive: Path) -> list[str]:
    """The images in an OCI or docker archive. Raises ValueError when it is neither, or its image has no name."""
    with tarfile.open(archive) as tar:
        members = {name.removeprefix("./"): name for name in tar.getnames()}
        for file in ("manifest.json", "index.json"):
            if content := tar.extractfile(members[file]) if file in members else None:
                return _names(archive, json.load(content))
    raise ValueError(f"{archive}: neither a docker nor an OCI archive (no manifest.json or index.json in it)")


def _names(
    archive: Path, described: list[dict[str, list[str]]] | dict[str, list[dict[str, dict[str, str]]]]
) -> list[str]:
    if isinstance(described, list):
        found = [name for image in described for name in image.get("RepoTags") or []]
    else:
        noted = [manifest.get("annotations") or {} for manifest in described["manifests"]]
        found = [name for notes in noted if (name := notes.get(CONTAINERD_NAME) or notes.get(REFERENCE))]
    if not found or any(":" not in name for name in found):
        raise ValueError(f"{archive}: its image needs a whole name such as localhost/app:dev, has {found or 'none'}")
    return [_normalized(name) for name in found]


def _normalized(name: str) -> str:
    """As kubelet spells what a pod asks for: no registry means docker.io, no folder there means library."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def load(cluster: Cluster, archive: Path) -> list[str]:
    """Load the archive's image on every node, under its name, which is returned."""
    found = names(archive)
    for node in cluster.nodes:
        load_on(node, archive, found)
    return found


def load_on(node: Node, archive: Path, found: list[str]) -> None:
    run(*entering(node), *CTR, "import", *_naming(archive, found), "-", source=archive)
    for name in found:
        processes.wait(f"kubelet of {node.name} may use {name}", partial(_known, node, name), 30)


def _naming(archive: Path, found: list[str]) -> list[str]:
    """containerd puts a date in front of names that only OCI's own annotation says: those it is told otherwise."""
    with tarfile.open(archive) as tar:
        text = "".join(content.read().decode() for name in tar.getnames() if (content := _described(tar, name)))
    known = CONTAINERD_NAME in text or "RepoTags" in text
    if not known and len(found) > 1:
        raise ValueError(f"{archive}: has several images ({', '.join(found)}); load an archive of each")
    return [] if known else ["--base-name", "none", "--index-name", found[0]]


def _described(tar: tarfile.TarFile, name: str) -> IO[bytes] | None:
    return tar.extractfile(name) if name.removeprefix("./") in ("manifest.json", "index.json") else None


def _known(node: Node, name: str) -> bool:
    """The CRI plugin marks what it has taken note of; before that, a pod would try to pull it."""
    return "io.cri-containerd.image=managed" in on_node(node, *CTR, "list", f"name=={name}")
