"""Node credentials: who is believed, and what the others are told."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from controller.authority.authentication import Caller, NodeIdentity, PodIdentity, bearer_token
from controller.authority.errors import AuthorityError, Unauthenticated
from controller.authority.tokens import KEY_FILE, TokenAuthenticator, issue_node_token, issue_pod_token


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "state" / KEY_FILE


def authenticate(key: Path, token: str) -> Caller:
    return asyncio.run(TokenAuthenticator(key).authenticate(token))


def forged(key: Path, algorithm: str = "ES256", **changes: object) -> str:
    claims: dict[str, Any] = jwt.decode(issue_node_token(key, "node-1", 60), options={"verify_signature": False})
    claims.update(changes)
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key.read_bytes() if algorithm == "ES256" else "", algorithm=algorithm)


def test_a_node_proves_itself(key: Path) -> None:
    assert authenticate(key, issue_node_token(key, "node-1", 60)) == NodeIdentity("node-1")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


POD = PodIdentity("shop", "catalog-waypoint", "catalog-waypoint-7d9c-x2x4z", "b6a1")


def test_a_pod_proves_which_it_is(key: Path) -> None:
    assert authenticate(key, issue_pod_token(key, POD, 60)) == POD


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "system:serviceaccount:bank:catalog-waypoint"},
        {"sub": "system:serviceaccount:shop:vault"},
        {"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "catalog-waypoint"}}},
    ],
)
def test_a_pods_token_with_other_claims_proves_nothing(key: Path, changes: dict[str, object]) -> None:
    claims = jwt.decode(issue_pod_token(key, POD, 60), options={"verify_signature": False}) | changes
    with pytest.raises(Unauthenticated, match="nor a pod's"):
        authenticate(key, jwt.encode(claims, key.read_bytes(), algorithm="ES256"))


def test_the_token_looks_like_kubernetes_own(key: Path) -> None:
    payload = issue_node_token(key, "node-1", 60).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["sub"] == "system:serviceaccount:ambit-system:ztunnel"
    assert claims["aud"] == ["istio-ca"]
    assert claims["kubernetes.io"] == {
        "namespace": "ambit-system",
        "node": {"name": "node-1"},
        "serviceaccount": {"name": "ztunnel"},
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": int(time.time()) - 1}, "expired"),
        ({"exp": None}, "malformed"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"aud": ["somebody-else"]}, "somebody else"),
        ({"iss": "elsewhere"}, "somebody else"),
        ({"sub": "system:serviceaccount:shop:web"}, "neither a ztunnel's nor a pod's"),
        ({"kubernetes.io": None}, "names no node"),
        ({"kubernetes.io": {"node": {"name": ""}}}, "names no node"),
        ({"kubernetes.io": "node-1"}, "names no node"),
    ],
)
def test_other_claims_prove_nothing(key: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(Unauthenticated, match=words):
        authenticate(key, forged(key, **changes))


def test_another_key_or_none_proves_nothing(key: Path, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="not signed by this controller"):
        authenticate(key, issue_node_token(tmp_path / "other.pem", "node-1", 60))
    with pytest.raises(Unauthenticated, match="not accepted"):
        authenticate(key, forged(key, algorithm="none"))
    for garbage in ("", "a.b.c", "\x00", "é.é.é"):
        with pytest.raises(Unauthenticated, match="malformed"):
            authenticate(key, garbage)


def test_a_key_file_that_is_no_key_is_told(key: Path) -> None:
    key.parent.mkdir()
    key.write_text("junk")
    with pytest.raises(AuthorityError, match=r"token-key\.pem is not a PEM private key"):
        issue_node_token(key, "node-1", 60)


def test_the_bearer_token_of_a_call() -> None:
    assert bearer_token([("clusterid", "Kubernetes"), ("authorization", "Bearer abc")]) == "abc"
    for metadata in ([], [("authorization", "Basic abc")], [("authorization", b"Bearer abc")]):
        with pytest.raises(Unauthenticated, match="no bearer token"):
            bearer_token(metadata)  # type: ignore[arg-type]
