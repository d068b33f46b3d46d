"""Projected volumes, as the kubelet makes them: a token of the pod's service account, fields of the pod as files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controller.authority.authentication import PodIdentity
from controller.authority.errors import AuthorityError
from controller.authority.tokens import AUDIENCE, issue_pod_token
from deploy.local.node import fields
from deploy.local.node.containers import Surroundings

log = logging.getLogger("projected")

DEFAULT_SECONDS = 3600.0  # core/v1 ServiceAccountTokenProjection
ROTATION = 0.8  # of a token's life: the kubelet's rule
RETRY = 5.0  # seconds

Pod = Mapping[str, Any]


class Projected:
    """The projected volumes of one pod. `key` is the file of the key that signs tokens."""

    def __init__(self, pod: Pod, around: Surroundings, key: Path) -> None:
        self._pod, self._around, self._key = pod, around, key
        self._volumes = [each for each in pod["spec"].get("volumes", ()) if "projected" in each]

    def write(self) -> None:
        """All files, new tokens in them. Raises ValueError (it names the volume), AuthorityError, OSError."""
        for volume in self._volumes:
            directory = self._around.volumes[volume["name"]]
            directory.chmod(0o755)
            try:
                for name, content in self._files(volume["projected"]):
                    _replace(directory, name, content, _owner(self._pod))
            except ValueError as error:
                raise ValueError(f"volume {volume['name']!r}: {error}") from None

    async def renew(self) -> None:
        """Until cancelled."""
        lives = [_seconds(token) for volume in self._volumes for token in _tokens(volume["projected"])]
        if not lives:
            return
        pause = ROTATION * min(lives)
        while True:
            await asyncio.sleep(pause)
            try:
                await asyncio.to_thread(self.write)
                pause = ROTATION * min(lives)
            except (OSError, AuthorityError) as error:
                name = f"{self._pod['metadata']['namespace']}/{self._pod['metadata']['name']}"
                log.error("the token of pod %s cannot be renewed: %s", name, error)
                pause = RETRY

    def _files(self, projected: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for source in projected.get("sources", ()):
            if "serviceAccountToken" in source:
                yield source["serviceAccountToken"]["path"], self._token(source["serviceAccountToken"])
            elif "downwardAPI" in source:
                for item in source["downwardAPI"].get("items", ()):
                    yield item["path"], self._field(item.get("fieldRef", {}).get("fieldPath", ""), item["path"])
            else:
                raise ValueError(f"{', '.join(source)}: local mode projects serviceAccountToken and downwardAPI only")

    def _field(self, path: str, name: str) -> str:
        around = self._around
        try:
            return fields.value(self._pod, path, around.node, around.node_address, around.addresses)
        except ValueError as error:
            raise ValueError(f"file {name} {error}") from None

    def _token(self, wanted: Mapping[str, Any]) -> str:
        if wanted.get("audience") != AUDIENCE:
            raise ValueError(f"the only audience for which there are tokens locally is {AUDIENCE}")
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName", "default")
        identity = PodIdentity(metadata["namespace"], account, metadata["name"], metadata["uid"])
        return issue_pod_token(self._key, identity, _seconds(wanted))


def _tokens(projected: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for source in projected.get("sources", ()):
        if "serviceAccountToken" in source:
            yield source["serviceAccountToken"]


def _seconds(token: Mapping[str, Any]) -> float:
    return float(token.get("expirationSeconds", DEFAULT_SECONDS))


def _owner(pod: Pod) -> int:
    """The user who may read: that of the pod, else the one that all its containers share, else root."""
    own = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {(each.get("securityContext") or {}).get("runAsUser", own) for each in pod["spec"]["containers"]}
    only = users.pop() if len(users) == 1 else None
    return int(only or 0)


def _replace(directory: Path, name: str, content: str, owner: int) -> None:
    """Readers see the old file or the new one. The name is one of this directory. Raises ValueError, OSError."""
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"path {name!r} is not the name of a file")
    temporary = directory / f".{name}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchown(descriptor, owner, -1)
        file.write(content)
    temporary.rename(directory / name)
