"""Archives, without a cluster."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import IO

import pytest

from tests.cluster.image_archive import make_image
from tests.cluster.images import names


def archive_of(path: Path, **files: object) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, value in files.items():
            content = json.dumps(value).encode()
            information = tarfile.TarInfo(f"{name}.json")
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))
    return path


def members_of(layer: IO[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=layer) as tar:
        return {member.name.removeprefix("./"): member for member in tar.getmembers()}


def test_every_blob_of_a_made_image_is_named_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF")
    make_image(tmp_path / "image.tar", "localhost/app:dev", ["/bin/app", "--flag"], {"/bin/app": tmp_path / "program"})
    with tarfile.open(tmp_path / "image.tar") as tar:
        blobs = {name: tar.extractfile(name) for name in tar.getnames() if name.startswith("blobs/")}
        contents = {name: blob.read() for name, blob in blobs.items() if blob}
    assert len(contents) == 3
    assert all(name.rpartition("/")[2] == hashlib.sha256(content).hexdigest() for name, content in contents.items())
    layer = next(content for content in contents.values() if b"\x7fELF" in content)
    assert "bin/app" in members_of(io.BytesIO(layer))


def test_a_root_file_system_keeps_modes_and_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_text("x")
    (root / "bin/sh").chmod(0o4755)
    (root / "sh").symlink_to("bin/sh")
    make_image(tmp_path / "image.tar", "localhost/root:dev", ["/bin/sh"], {"/": root})
    with tarfile.open(tmp_path / "image.tar") as tar:
        largest = max(tar.getmembers(), key=lambda member: member.size)
        content = tar.extractfile(largest)
        assert content
        members = members_of(content)
    assert members["bin/sh"].mode == 0o4755
    assert members["sh"].linkname == "bin/sh"


@pytest.mark.parametrize(
    ("tag", "known_as"),
    [
        ("localhost/app:dev", "localhost/app:dev"),
        ("ambit/node:dev", "docker.io/ambit/node:dev"),
        ("app:dev", "docker.io/library/app:dev"),
        ("registry.k8s.io/pause:3", "registry.k8s.io/pause:3"),
        ("host:5000/app:dev", "host:5000/app:dev"),
    ],
)
def test_images_are_known_as_kubelet_spells_them(tmp_path: Path, tag: str, known_as: str) -> None:
    assert names(archive_of(tmp_path / "docker.tar", manifest=[{"RepoTags": [tag]}])) == [known_as]
    described = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": tag}}]}
    assert names(archive_of(tmp_path / "oci.tar", index=described)) == [known_as]


@pytest.mark.parametrize("files", [{}, {"manifest": [{"RepoTags": None}]}, {"index": {"manifests": [{}]}}])
def test_what_has_no_name_is_refused(tmp_path: Path, files: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"nameless\.tar"):
        names(archive_of(tmp_path / "nameless.tar", **files))


def test_a_tag_alone_is_no_name(tmp_path: Path) -> None:
    described = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "latest"}}]}
    with pytest.raises(ValueError, match="whole name"):
        names(archive_of(tmp_path / "oci.tar", index=described))
