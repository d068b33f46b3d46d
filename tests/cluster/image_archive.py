"""Images without a registry, made of files: an OCI archive of one layer (image-spec 1.0)."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY_DIRECTORIES = ("tmp", "etc", "proc", "dev", "sys")


def make_image(archive: Path, name: str, entrypoint: Sequence[str], files: Mapping[str, Path]) -> None:
    """Write the archive; `files` maps paths in the image to files or directories here.

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
