"""Credentials on Kubernetes: the projected service account token of a pod, judged by the API server.

As istiod's kubeauth and node_auth: the audience is ours, the token belongs to a pod that is there, and of pods of the
node's account the pod's node, not the caller, says which node this is. Any other pod is only itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.authority.authentication import Caller, NodeIdentity, PodIdentity
from controller.authority.errors import Unauthenticated, Undecided
from controller.store.interface import NotFound, StoreError
from controller.store.kinds import POD
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer

AUDIENCE = "istio-ca"
ACCOUNT = "ambit-node"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
NODE_NAME = "authentication.kubernetes.io/node-name"  # Kubernetes 1.30 and later
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"

ACCEPTED_SECONDS = 60.0  # how long a review holds: a ztunnel asks once per certificate, a pod's end shows that late
REFUSED_SECONDS = 1.0  # enough against a caller that asks in a loop, short for one whose pod is just being made
MAX_REMEMBERED = 4096  # tokens: more than a mesh has nodes
MAX_REVIEWS = 4  # under way at once, so that garbage from one caller leaves threads for everybody else
MAX_TOKEN_BYTES = 16 << 10
_MAX_REASON = 300  # characters of what the API server says


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Of one token; `until` is on the monotonic clock."""

    caller: Caller | None
    refusal: str
    until: float


class TokenReviewAuthenticator:
    """Accepts tokens of pods; those of the service account `ambit-node` in `namespace` are ztunnels. Tokens are kept
    only as hashes."""

    def __init__(
        self, server: ApiServer, namespace: str, account: str = ACCOUNT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server, self._clock = server, clock
        self._namespace = namespace
        self._subject = f"system:serviceaccount:{namespace}:{account}"
        self._judgements: OrderedDict[bytes, _Judgement] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[_Judgement]] = {}
        self._turn = asyncio.Semaphore(MAX_REVIEWS)

    async def authenticate(self, token: str) -> Caller:
        """Raises Unauthenticated; Undecided when the API server cannot be asked."""
        if not token or len(token) > MAX_TOKEN_BYTES or not (token.isascii() and token.isprintable()):
            raise Unauthenticated("the token is not accepted: it is malformed")
        digest = hashlib.sha256(token.encode()).digest()
        judgement = self._judgements.get(digest)
        if judgement is None or judgement.until <= self._clock():
            judgement = await self._reviewed(digest, token)
        if judgement.caller is None:
            raise Unauthenticated(f"the token is not accepted: {judgement.refusal}")
        return judgement.caller

    async def _reviewed(self, digest: bytes, token: str) -> _Judgement:
        """One review for all who come with the same token meanwhile."""
        task = self._under_way.get(digest)
        if task is None:
            task = self._under_way[digest] = asyncio.create_task(self._review(digest, token))
            task.add_done_callback(lambda done: self._forget(digest, done))
        return await asyncio.shield(task)  # the others go on when one hangs up

    def _forget(self, digest: bytes, task: asyncio.Task[_Judgement]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits any more

    async def _review(self, digest: bytes, token: str) -> _Judgement:
        caller, refusal = None, ""
        async with self._turn:
            try:
                caller = await self._server.call(self._judge, token)
            except Undecided:
                raise
            except Unauthenticated as error:
                refusal = str(error)
        held = REFUSED_SECONDS if refusal else min(ACCEPTED_SECONDS, _seconds_left(token, time.time()))
        judgement = _Judgement(caller, refusal, self._clock() + held)
        self._judgements[digest] = judgement
        self._judgements.move_to_end(digest)
        while len(self._judgements) > MAX_REMEMBERED:
            self._judgements.popitem(last=False)
        return judgement

    def _judge(self, token: str) -> Caller:
        """Blocking. Raises Unauthenticated with the bare reason, or Undecided."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            status = self._server.create(REVIEWS, review).get("status") or {}
            pod = bound_pod(status, token)
            if pod.subject == self._subject:
                return NodeIdentity(pod.node or self._node_of(pod))
            return pod_identity(pod)
        except StoreError as error:
            raise Undecided(f"the token cannot be checked now: {error}") from error

    def _node_of(self, bound: BoundPod) -> str:
        """For API servers that do not write the node into tokens."""
        try:
            pod = self._server.get(paths.of(POD, bound.name, self._namespace))
        except NotFound as error:
            raise Unauthenticated("its pod does not exist any more") from error
        if pod["metadata"]["uid"] != bound.uid:
            raise Unauthenticated("its pod does not exist any more")
        node = pod["spec"].get("nodeName")
        if not node:
            raise Unauthenticated("its pod is on no node")
        return str(node)


@dataclass(frozen=True, slots=True)
class BoundPod:
    """The pod that a token was made for, and its user; `node` is empty when the token does not say."""

    subject: str
    name: str
    uid: str
    node: str


def bound_pod(status: Mapping[str, Any], token: str) -> BoundPod:
    """What a TokenReviewStatus proves. Pure. Raises Unauthenticated with the bare reason."""
    if status.get("authenticated") is not True:
        reason = str(status.get("error") or "it is unknown to the API server").replace(token, "...")
        raise Unauthenticated(reason[:_MAX_REASON])
    if AUDIENCE not in (status.get("audiences") or ()):
        # An authenticator that knows no audiences answers without any: then nobody has checked it.
        raise Unauthenticated(f"it is not for the audience {AUDIENCE}")
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    name, uid, node = (_only(extra.get(key)) for key in (POD_NAME, POD_UID, NODE_NAME))
    if not name or not uid:
        raise Unauthenticated("it belongs to no pod")
    return BoundPod(str(user.get("username") or ""), name, uid, node)


def pod_identity(pod: BoundPod) -> PodIdentity:
    """Raises Unauthenticated with the bare reason."""
    parts = pod.subject.split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"]:
        raise Unauthenticated(f"it is {pod.subject}'s, who is no service account")
    return PodIdentity(parts[2], parts[3], pod.name, pod.uid)


def _only(values: Any) -> str:
    """The value of a field that has one; two would be an ambiguity that nobody should resolve."""
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _seconds_left(token: str, now: float) -> float:
    """Until the token expires by its own claim, which the API server has verified; 0 when it says nothing."""
    try:
        body = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return max(0.0, float(claims["exp"]) - now)
    except (IndexError, ValueError, TypeError, KeyError, msgspec.DecodeError):
        return 0.0
