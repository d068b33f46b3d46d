"""The CA in a Secret, so that every replica signs with one key; its root in a ConfigMap, for whoever has to trust it.

The Secret is created once and never changed: a CA of your own is a Secret of this name with the files of `issuer`.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Any

from controller.authority.errors import AuthorityError
from controller.authority.issuer import ROOT_CERTIFICATE
from controller.store.interface import Kind, NotFound, StoreError
from controller.store.kinds import CONFIG_MAP
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.errors import AlreadyExists

log = logging.getLogger("authority")

SECRET = Kind("", "v1", "Secret", "secrets")
CA_SECRET = "ambit-ca"
ROOTS_CONFIG_MAP = "ambit-ca-root-cert"


class SecretPlace:
    """A `Place`; blocking. What is there is read once: a CA does not change under way."""

    def __init__(self, server: ApiServer, namespace: str, name: str = CA_SECRET) -> None:
        """Raises StoreError."""
        self._server, self._namespace, self._name = server, namespace, name
        try:
            self._data = self._read()
        except NotFound:
            self._data = {}

    def has(self, name: str) -> bool:
        return name in self._data

    def read(self, name: str) -> bytes:
        try:
            return base64.b64decode(self._data[name], validate=True)
        except KeyError:
            raise AuthorityError(f"there is no {self.where(name)}") from None
        except binascii.Error as error:
            raise AuthorityError(f"{self.where(name)} is not base64: {error}") from error

    def where(self, name: str) -> str:
        return f"{name} in Secret {self._namespace}/{self._name}"

    def create(self, private: Mapping[str, bytes], public: Mapping[str, bytes]) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "type": "Opaque",
            "immutable": True,  # a root that is replaced by accident would cut off every peer
            "data": {name: base64.b64encode(content).decode() for name, content in {**private, **public}.items()},
        }
        try:
            self._server.create(paths.collection(SECRET, self._namespace), secret)
        except AlreadyExists:
            pass  # another replica's; or an empty one, which is said when it is read
        self._data = self._read()

    def _read(self) -> dict[str, str]:
        found = self._server.get(paths.of(SECRET, self._name, self._namespace))
        return found.get("data") or {}


def publish_roots(server: ApiServer, namespace: str, roots: str) -> bool:
    """Whether the ConfigMap had to be made or mended. Blocking. Raises StoreError."""
    path = paths.of(CONFIG_MAP, ROOTS_CONFIG_MAP, namespace)
    wanted = {ROOT_CERTIFICATE: roots}
    try:
        if server.get(path).get("data") == wanted:
            return False
        server.patch(path, {"data": wanted})
    except NotFound:
        _create_roots(server, namespace, wanted)
    return True


def _create_roots(server: ApiServer, namespace: str, data: dict[str, Any]) -> None:
    metadata = {"name": ROOTS_CONFIG_MAP, "namespace": namespace}
    try:
        server.create(
            paths.collection(CONFIG_MAP, namespace),
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data},
        )
    except AlreadyExists:
        pass  # another replica was faster, with the same roots


async def mend_roots(server: ApiServer, namespace: str, roots: str) -> None:
    """Somebody may have deleted or edited the ConfigMap; without it no new node can start."""
    try:
        if await server.call(publish_roots, server, namespace, roots):
            log.warning("ConfigMap %s/%s was not as it has to be, and is again", namespace, ROOTS_CONFIG_MAP)
    except StoreError as error:
        log.warning("ConfigMap %s/%s cannot be looked at: %s", namespace, ROOTS_CONFIG_MAP, error)
