"""Credentials of local mode, of nodes and pods: JWTs in the shape of Kubernetes' projected service account tokens.

The key that signs them is in the controller's state directory; who can read it is the node's landlord anyway.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority import files
from controller.authority.authentication import Caller, NodeIdentity, PodIdentity
from controller.authority.errors import AuthorityError, Unauthenticated
from controller.authority.keys import load_key, new_key, to_pem
from mesh.model.enrolment import SYSTEM_NAMESPACE

ISSUER = "ambit-local"
AUDIENCE = "istio-ca"
ACCOUNT = "ztunnel"
_SUBJECTS = "system:serviceaccount:"
SUBJECT = f"{_SUBJECTS}{SYSTEM_NAMESPACE}:{ACCOUNT}"
KEY_FILE = "token-key.pem"  # in the controller's state directory
_ALGORITHM = "ES256"
_CLAIMS = "kubernetes.io"
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]


def issue_node_token(key_path: Path, node: str, lifetime_seconds: float) -> str:
    """A token for the ztunnel of `node`; the key is made if there is none. Raises AuthorityError."""
    holder = {"namespace": SYSTEM_NAMESPACE, "node": {"name": node}, "serviceaccount": {"name": ACCOUNT}}
    return _issue(key_path, SUBJECT, holder, lifetime_seconds)


def issue_pod_token(key_path: Path, pod: PodIdentity, lifetime_seconds: float) -> str:
    """A token for a pod, as that of its service account. Raises AuthorityError."""
    subject = f"{_SUBJECTS}{pod.namespace}:{pod.service_account}"
    named = {"pod": {"name": pod.pod, "uid": pod.uid}, "serviceaccount": {"name": pod.service_account}}
    return _issue(key_path, subject, {"namespace": pod.namespace, **named}, lifetime_seconds)


def _issue(key_path: Path, subject: str, holder: Mapping[str, Any], lifetime_seconds: float) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": subject,
        "iat": now,
        "nbf": now,
        "exp": now + max(1, int(lifetime_seconds)),
        _CLAIMS: holder,
    }
    return jwt.encode(claims, _signing_key(key_path), algorithm=_ALGORITHM)


class TokenAuthenticator:
    """Accepts what `issue_node_token` and `issue_pod_token` made with the same key."""

    def __init__(self, key_path: Path) -> None:
        """The key is made if there is none. Raises AuthorityError."""
        self._key = _signing_key(key_path).public_key()

    async def authenticate(self, token: str) -> Caller:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": _REQUIRED},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not accepted: {_words(error)}") from error
        return NodeIdentity(_node(claims)) if claims["sub"] == SUBJECT else _pod(claims)


def _node(claims: Mapping[str, Any]) -> str:
    match claims.get(_CLAIMS):
        case {"node": {"name": str(name)}} if name:
            return name
        case _:
            raise Unauthenticated("the token is not accepted: it names no node")


def _pod(claims: Mapping[str, Any]) -> PodIdentity:
    match claims.get(_CLAIMS):
        case {
            "namespace": str(namespace),
            "pod": {"name": str(name), "uid": str(uid)},
            "serviceaccount": {"name": str(account)},
        } if claims["sub"] == f"{_SUBJECTS}{namespace}:{account}":
            return PodIdentity(namespace, account, name, uid)
        case _:
            raise Unauthenticated("the token is not accepted: it is neither a ztunnel's nor a pod's")


def _signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        files.create_private(path, to_pem(new_key()))
    key = load_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise AuthorityError(f"the key in {path} is not ECDSA P-256")
    return key


def _words(error: jwt.PyJWTError) -> str:
    """Never the library's own text: it can quote the token."""
    match error:
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.ImmatureSignatureError():
            return "it is not valid yet"
        case jwt.InvalidAudienceError() | jwt.InvalidIssuerError():
            return "it is for or from somebody else"
        case jwt.InvalidSignatureError():
            return "it is not signed by this controller"
        case _:
            return "it is malformed"
