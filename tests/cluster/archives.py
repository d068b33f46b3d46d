"""The archive that `make_image` writes, as other tools would have written it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path


def as_docker(made: Path, archive: Path, name: str) -> None:
    """`docker save`: a manifest.json that names the files."""
    files = _read(made)
    manifest = _manifest(files)
    config, layer = (_blob(manifest[key]) for key in ("config", "layers"))
    described = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    _write(archive, {"manifest.json": _json(described), "config.json": files[config], "layer.tar": files[layer]})


def as_buildah(made: Path, archive: Path, name: str) -> None:
    """`buildah push oci-archive:`: the name in OCI's annotation only."""
    files = _read(made)
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": name}
    _write(archive, files | {"index.json": _json(index)})


def _manifest(files: dict[str, bytes]) -> dict[str, object]:
    index = json.loads(files["index.json"])
    manifest: dict[str, object] = json.loads(files[_blob(index["manifests"][0])])
    return manifest


def _blob(descriptor: object) -> str:
    found = descriptor[0] if isinstance(descriptor, list) else descriptor
    assert isinstance(found, dict)
    return f"blobs/sha256/{found['digest'].removeprefix('sha256:')}"


def _read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        opened = {name: tar.extractfile(name) for name in tar.getnames()}
        return {name: file.read() for name, file in opened.items() if file}


def _write(archive: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
