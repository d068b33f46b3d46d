"""Projected volumes: what is in the files, who may read them, and what cannot be projected."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.authority.authentication import PodIdentity
from controller.authority.tokens import TokenAuthenticator
from deploy.local.node.projected import Projected
from tests.local import objects
from tests.local.test_pods import AROUND

TOKEN = {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 1000}}


def projected(directory: Path, source: dict[str, Any], **spec: Any) -> Projected:
    (directory / "identity").mkdir(exist_ok=True)
    volumes = [{"name": "identity", "projected": {"sources": [source]}}]
    pod = objects.pod("web-1", serviceAccountName="web", volumes=volumes, **spec)
    around = replace(AROUND, volumes={"identity": directory / "identity"})
    return Projected(pod, around, directory / "key.pem")


def test_a_token_is_the_pods_own(tmp_path: Path) -> None:
    projected(tmp_path, TOKEN).write()
    token = (tmp_path / "identity" / "token").read_text()
    caller = asyncio.run(TokenAuthenticator(tmp_path / "key.pem").authenticate(token))
    assert isinstance(caller, PodIdentity)
    assert (caller.namespace, caller.service_account, caller.pod) == ("shop", "web", "web-1")


def test_fields_become_files(tmp_path: Path) -> None:
    item = {"path": "roots", "fieldRef": {"fieldPath": "metadata.annotations['ambit.io/ca-roots']"}}
    volume = projected(tmp_path, {"downwardAPI": {"items": [item]}})
    volume._pod["metadata"]["annotations"] = {"ambit.io/ca-roots": "PEM"}
    volume.write()
    assert (tmp_path / "identity" / "roots").read_text() == "PEM"


@pytest.mark.root
def test_only_the_pods_user_may_read(tmp_path: Path) -> None:
    projected(tmp_path, TOKEN, containers=[{"name": "main", "securityContext": {"runAsUser": 65532}}]).write()
    found = (tmp_path / "identity" / "token").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (65532, 0o600)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"secret": {"name": "x"}}, "secret"),
        ({"serviceAccountToken": {"path": "token"}}, "istio-ca"),
        ({"serviceAccountToken": {**TOKEN["serviceAccountToken"], "path": "../token"}}, "'../token'"),
        ({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.secret"}}]}}, "fieldRef"),
    ],
)
def test_what_cannot_be_projected_names_the_volume(tmp_path: Path, source: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="volume 'identity'") as failure:
        projected(tmp_path, source).write()
    assert words in str(failure.value)
