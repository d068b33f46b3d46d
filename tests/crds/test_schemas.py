"""What a real API server takes by our schemas is what local mode takes, and the other way round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.store.interface import NotFound, StoreError
from controller.store.kubernetes.api import ApiServer
from controller.store.manifest import ManifestError, check_object
from tests.store import apiserver

CRDS = Path(__file__).parents[2] / "deploy" / "helm" / "ambit" / "crds"
Object = dict[str, Any]


def policy(spec: Object, kind: str = "AuthorizationPolicy", version: str = "v1") -> Object:
    metadata = {"name": "tried", "namespace": "default"}
    return {"apiVersion": f"security.istio.io/{version}", "kind": kind, "metadata": metadata, "spec": spec}


def source(**fields: Any) -> Object:
    return policy({"rules": [{"from": [{"source": fields}]}]})


def operation(**fields: Any) -> Object:
    return policy({"rules": [{"to": [{"operation": fields}]}]})


def when(**fields: Any) -> Object:
    return policy({"rules": [{"when": [fields]}]})


def authentication(**spec: Any) -> Object:
    return policy(spec, "PeerAuthentication")


WEB = {"matchLabels": {"app": "web"}}
TARGET = {"group": "", "kind": "Service", "name": "web"}
GOOD = {
    "nothing": policy({}),
    "everything": policy({"rules": [{}]}),
    "earlier version": policy({"action": "DENY"}, version="v1beta1"),
    "selector": policy({"selector": WEB, "action": "DENY", "rules": [{}]}),
    "targets": policy({"targetRefs": [TARGET]}),
    "target": policy({"targetRef": TARGET}),
    "custom": policy({"action": "CUSTOM", "provider": {"name": "check"}, "rules": [{}]}),
    "principals": source(principals=["cluster.local/ns/a/sa/b", "*", "*/sa/b", "cluster.local/*"]),
    "negations": source(notPrincipals=["*"], notNamespaces=["a"], notIpBlocks=["10.0.0.0/8"]),
    "blocks": source(ipBlocks=["10.0.0.1", "10.0.0.0/8", "fd00::/8", "fd00::1"]),
    "accounts": source(serviceAccounts=["web", "shop/web"]),
    "trust domains": source(trustDomains=["cluster.local", "*", "example*"]),
    "ports": operation(ports=["1", "80", "65535"]),
    "http": operation(methods=["GET"], paths=["/a/{*}"], hosts=["*.example.org"]),
    "values": when(key="source.ip", values=["10.0.0.0/8"]),
    "other values": when(key="request.headers[x-a]", notValues=["b"]),
    "strict": authentication(mtls={"mode": "STRICT"}),
    "by port": authentication(selector=WEB, portLevelMtls={"8080": {"mode": "DISABLE"}}),
    "nothing said": authentication(),
}
BAD = {
    "action": policy({"action": "ALLOWED"}),
    "rules": policy({"rules": {}}),
    "both": policy({"selector": WEB, "targetRefs": [TARGET]}),
    "wild label": policy({"selector": {"matchLabels": {"app": "w*"}}}),
    "empty source": source(),
    "empty operation": operation(),
    "empty principal": source(principals=[""]),
    "inner star": source(principals=["a*b"]),
    "two stars": source(namespaces=["*a*"]),
    "no block": source(ipBlocks=["10.0.0.0/33"]),
    "no address": source(notIpBlocks=["web"]),
    "account of nobody": source(serviceAccounts=["a/b/c"]),
    "wild account": source(serviceAccounts=["shop/*"]),
    "wild domain": source(trustDomains=["*.local"]),
    "port 0": operation(ports=["0"]),
    "port too high": operation(ports=["65536"]),
    "named port": operation(notPorts=["http"]),
    "no values": when(key="source.ip"),
    "no key": when(values=["a"]),
    "mode": authentication(mtls={"mode": "ON"}),
    "ports of all": authentication(portLevelMtls={"8080": {"mode": "DISABLE"}}),
    "no port": authentication(selector=WEB, portLevelMtls={"http": {"mode": "DISABLE"}}),
    "high port": authentication(selector=WEB, portLevelMtls={"65536": {"mode": "DISABLE"}}),
}


@pytest.mark.parametrize("obj", GOOD.values(), ids=GOOD)
def test_local_mode_takes(obj: Object) -> None:
    check_object(obj)


@pytest.mark.parametrize("obj", BAD.values(), ids=BAD)
def test_local_mode_refuses(obj: Object) -> None:
    with pytest.raises(ManifestError):
        check_object(obj)


def test_local_mode_refuses_fields_that_it_does_not_know() -> None:
    with pytest.raises(ManifestError, match="ipBlock"):
        check_object(source(ipBlock=["10.0.0.0/8"]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if reason := apiserver.missing():
        pytest.skip(reason)
    process = apiserver.Server(tmp_path_factory.mktemp("apiserver"))
    try:
        process.start()
        api = process.api()
        for path in CRDS.glob("*.yaml"):
            crd = yaml.safe_load(path.read_text())
            api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        _served(api)
        yield api
    finally:
        process.close()


def _served(api: ApiServer) -> None:
    """Definitions are served some moments after they are taken."""
    deadline = time.monotonic() + 60
    for obj in (GOOD["nothing"], GOOD["earlier version"], GOOD["nothing said"]):
        while True:
            try:
                api.get(_path(obj))
                break
            except NotFound:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def _path(obj: Object) -> str:
    plural = {"AuthorizationPolicy": "authorizationpolicies", "PeerAuthentication": "peerauthentications"}
    return f"/apis/{obj['apiVersion']}/namespaces/default/{plural[obj['kind']]}"


def _try(api: ApiServer, obj: Object) -> None:
    api.create(f"{_path(obj)}?dryRun=All&fieldValidation=Strict", obj)


@pytest.mark.parametrize("obj", GOOD.values(), ids=GOOD)
def test_an_api_server_takes(server: ApiServer, obj: Object) -> None:
    _try(server, obj)


@pytest.mark.parametrize("obj", BAD.values(), ids=BAD)
def test_an_api_server_refuses(server: ApiServer, obj: Object) -> None:
    with pytest.raises(StoreError, match=r"[Ii]nvalid"):
        _try(server, obj)
