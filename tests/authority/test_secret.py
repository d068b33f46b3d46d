"""The CA in a Secret of a real API server, with the controller's own rights."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from controller.authority.errors import AuthorityError
from controller.authority.issuer import Issuer, obtain
from controller.authority.secret import SECRET, SecretPlace, publish_roots
from controller.store.interface import StoreError
from controller.store.kinds import CONFIG_MAP
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from tests.identity import certificates_for_tests as made
from tests.store.apiserver import Server, ensure
from tests.store.system import System

NOW = datetime.now(UTC)


@pytest.fixture
def system(api_server: Server) -> System:
    return System(api_server)


@pytest.fixture
def server(system: System) -> ApiServer:
    return system.server.api(system.controller_token())


def load(server: ApiServer, system: System) -> Issuer:
    return obtain(SecretPlace(server, system.namespace), "cluster.local", NOW)


def give(system: System, **data: bytes) -> None:
    encoded = {name.replace("_", "-") + ".pem": base64.b64encode(text).decode() for name, text in data.items()}
    ensure(system.api, SECRET, {"metadata": {"name": "ambit-ca", "namespace": system.namespace}, "data": encoded})


def test_a_root_is_made_once_and_kept(system: System, server: ApiServer) -> None:
    first, again = load(server, system), load(server, system)
    assert first.roots == again.roots
    assert first.key.private_numbers() == again.key.private_numbers()
    found = system.api.get(paths.of(SECRET, "ambit-ca", system.namespace))
    assert set(found["data"]) == {"root-cert.pem", "root-key.pem"}
    assert found["type"] == "Opaque"


def test_replicas_that_start_at_once_have_one_root(system: System) -> None:
    servers = [system.server.api(system.controller_token()) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        roots = set(threads.map(lambda server: load(server, system).roots, servers))
    assert len(roots) == 1


def test_a_given_ca_is_used(system: System, server: ApiServer) -> None:
    root = made.Issuer.root()
    signer = root.intermediate()
    give(system, root_cert=root.pem, ca_cert=signer.pem, ca_key=made.pem_of_key(signer.key))
    issuer = load(server, system)
    assert issuer.certificate == signer.certificate
    assert issuer.intermediates == (signer.pem.decode(),)
    assert issuer.roots == root.pem.decode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"root_cert": made.Issuer.root().pem}, r"there is no root-key\.pem in Secret ambit-system-\d+/ambit-ca"),
        ({"root_cert": b"junk", "root_key": b"junk"}, r"root-cert\.pem in Secret .* holds no usable PEM"),
        ({}, r"there is no root-cert\.pem in Secret"),
    ],
)
def test_what_is_wrong_with_a_secret_is_told_and_nothing_is_overwritten(
    system: System, server: ApiServer, data: dict[str, bytes], words: str
) -> None:
    give(system, **data)
    with pytest.raises(AuthorityError, match=words):
        load(server, system)
    assert len(system.api.get(paths.of(SECRET, "ambit-ca", system.namespace)).get("data", {})) == len(data)


def test_the_root_is_published_and_mended(system: System, server: ApiServer) -> None:
    path = paths.of(CONFIG_MAP, "ambit-ca-root-cert", system.namespace)
    assert publish_roots(server, system.namespace, "ROOT")
    assert not publish_roots(server, system.namespace, "ROOT")
    system.api.patch(path, {"data": {"root-cert.pem": "forged"}})
    assert publish_roots(server, system.namespace, "ROOT")
    assert system.api.get(path)["data"] == {"root-cert.pem": "ROOT"}
    system.api.delete(path)
    assert publish_roots(server, system.namespace, "ROOT")
    assert system.api.get(path)["data"] == {"root-cert.pem": "ROOT"}


def test_nobody_else_reads_the_key(system: System, server: ApiServer) -> None:
    load(server, system)
    for account in ("ambit-node", "other"):
        with pytest.raises(StoreError, match="forbidden"):
            SecretPlace(system.server.api(system.token(account)), system.namespace)
