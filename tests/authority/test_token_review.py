"""Node tokens as a real API server makes and judges them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from controller.authority import token_review
from controller.authority.authentication import NodeIdentity, PodIdentity
from controller.authority.errors import Unauthenticated, Undecided
from controller.authority.token_review import TokenReviewAuthenticator, bound_pod, pod_identity
from controller.store.kubernetes.api import ApiServer
from tests.controller.process import free_port, run
from tests.store.apiserver import Server
from tests.store.system import System

AUDIENCE = "istio-ca"


@pytest.fixture(scope="module")
def system(api_server: Server) -> System:
    return System(api_server)


@pytest.fixture
def server(system: System) -> ApiServer:
    """With the rights of the controller's own account."""
    return system.server.api(system.controller_token())


@pytest.fixture
def authenticator(system: System, server: ApiServer) -> TokenReviewAuthenticator:
    return TokenReviewAuthenticator(server, system.namespace)


@pytest.fixture
def reviews(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reviews that were asked for."""
    asked: list[str] = []
    create = server.create

    def counting(path: str, obj: Any) -> Any:
        asked.append(path)
        return create(path, obj)

    monkeypatch.setattr(server, "create", counting)
    return asked


def forged(system: System, token: str, key: Any = None, **claims: Any) -> str:
    """The same token with other claims, signed by the API server's own key unless another is given."""
    header = jwt.get_unverified_header(token)
    content = jwt.decode(token, options={"verify_signature": False}) | claims
    if key is None:
        key = serialization.load_pem_private_key((system.server.place / "accounts.key").read_bytes(), None)
    return jwt.encode(content, key, algorithm="RS256", headers={"kid": header["kid"]})


def test_a_node_pods_token_says_which_node(system: System, authenticator: TokenReviewAuthenticator) -> None:
    for node in ("node1", "node2"):
        token = system.token(pod=system.node_pod(node), audience=AUDIENCE)
        assert run(authenticator.authenticate(token)) == NodeIdentity(node)


def test_a_token_of_another_account_says_which_pod(system: System, authenticator: TokenReviewAuthenticator) -> None:
    """Whatever node it runs on: only the account of nodes speaks for one."""
    pod = system.node_pod("node1", account="other")
    found = run(authenticator.authenticate(system.token("other", pod, AUDIENCE)))
    assert found == PodIdentity(system.namespace, "other", pod.name, found.uid)
    assert found.uid


def test_a_token_from_before_the_pod_was_scheduled_is_looked_up(
    system: System, authenticator: TokenReviewAuthenticator
) -> None:
    """Also what happens with API servers that never write the node into tokens."""
    pod = system.node_pod("")
    token = system.token(pod=pod, audience=AUDIENCE)

    async def scenario() -> None:
        with pytest.raises(Unauthenticated, match="its pod is on no node"):
            await authenticator.authenticate(token)
        system.bind(pod, "node3")
        async with asyncio.timeout(20):
            while True:
                try:
                    found = await authenticator.authenticate(token)
                    break
                except Unauthenticated:  # the refusal is remembered for a second
                    await asyncio.sleep(0.1)
        assert found == NodeIdentity("node3")

    run(scenario())


def _expired(system: System) -> str:
    token = system.token(pod=system.node_pod("node1"), audience=AUDIENCE)
    return forged(system, token, iat=1_700_000_000, nbf=1_700_000_000, exp=1_700_000_600)


def _signed_by_somebody(system: System) -> str:
    key = rsa.generate_private_key(65537, 2048)
    return forged(system, system.token(pod=system.node_pod("node1"), audience=AUDIENCE), key)


def _with_another_node(system: System) -> str:
    head, body, signature = system.token(pod=system.node_pod("node1"), audience=AUDIENCE).split(".")
    other = system.token(pod=system.node_pod("node2"), audience=AUDIENCE).split(".")[1]
    return f"{head}.{other}.{signature}" if other != body else ""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_expired, "expired"),
        (lambda s: s.token(pod=s.node_pod("node1"), audience="vault"), "audience"),
        (lambda s: s.token(pod=s.node_pod("node1")), "audience"),
        (lambda s: s.token(audience=AUDIENCE), "it belongs to no pod"),
        (lambda s: s.controller_token(), "audience"),
        (_signed_by_somebody, "invalid bearer token"),
        (_with_another_node, "invalid bearer token"),
        (lambda s: "garbage", "invalid bearer token|unknown"),
        (lambda s: "", "malformed"),
        (lambda s: "x" * 20_000, "malformed"),
        (lambda s: "\ud800\x00\n", "invalid bearer token|unknown|malformed"),
        (lambda s: "admin-token", "invalid bearer token"),
    ],
    ids=[
        "expired", "another audience", "the API's audience", "no pod", "the controller's",
        "another key", "another body", "garbage", "nothing", "long", "no text", "an administrator's",
    ],
)  # fmt: skip
def test_what_proves_nothing_is_refused_with_a_reason(
    system: System,
    authenticator: TokenReviewAuthenticator,
    make: Callable[[System], str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = make(system)
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated, match=reason) as refusal:
        run(authenticator.authenticate(token))
    assert not isinstance(refusal.value, Undecided)
    if len(token) > 20:
        assert token not in str(refusal.value)
        assert token not in caplog.text


def test_a_deleted_pods_token_is_worth_nothing(system: System, server: ApiServer) -> None:
    pod = system.node_pod("node1")
    token = system.token(pod=pod, audience=AUDIENCE)

    async def scenario() -> None:
        assert (await TokenReviewAuthenticator(server, system.namespace).authenticate(token)) == NodeIdentity("node1")
        system.remove(pod)
        async with asyncio.timeout(20):
            while True:  # until the API server's own copy of its pods has noticed
                try:
                    await TokenReviewAuthenticator(server, system.namespace).authenticate(token)
                except Undecided:
                    raise
                except Unauthenticated:
                    return
                await asyncio.sleep(0.05)

    run(scenario())


def test_a_pod_of_the_same_name_does_not_inherit_a_token(system: System, server: ApiServer) -> None:
    pod = system.node_pod("", "ambit-node-again")
    token = system.token(pod=pod, audience=AUDIENCE)
    system.remove(pod)
    system.node_pod("node2", "ambit-node-again")
    with pytest.raises(Unauthenticated):
        run(TokenReviewAuthenticator(server, system.namespace).authenticate(token))


def test_many_who_come_at_once_with_one_token_cost_one_review(
    system: System, authenticator: TokenReviewAuthenticator, reviews: list[str]
) -> None:
    token = system.token(pod=system.node_pod("node1"), audience=AUDIENCE)

    async def scenario() -> None:
        found = await asyncio.gather(*(authenticator.authenticate(token) for _ in range(50)))
        assert set(found) == {NodeIdentity("node1")}
        await authenticator.authenticate(token)

    run(scenario())
    assert len(reviews) == 1


def test_a_review_holds_no_longer_than_the_token(system: System, server: ApiServer, reviews: list[str]) -> None:
    """Time is moved, not waited for."""
    token = system.token(pod=system.node_pod("node1"), audience=AUDIENCE)
    now = [1000.0]
    authenticator = TokenReviewAuthenticator(server, system.namespace, clock=lambda: now[0])

    async def scenario() -> None:
        for later, count in ((0, 1), (59, 1), (2, 2), (59, 2), (2, 3)):
            now[0] += later
            await authenticator.authenticate(token)
            assert len(reviews) == count, later

    run(scenario())
    expiry = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert token_review._seconds_left(token, expiry - 7.0) == 7.0
    assert token_review._seconds_left(token, expiry + 7.0) == 0.0
    assert token_review._seconds_left("a.b.c", 0.0) == 0.0


def test_what_is_remembered_is_bounded(
    authenticator: TokenReviewAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_review, "MAX_REMEMBERED", 5)

    async def scenario() -> None:
        for number in range(12):
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(f"garbage{number}")
        assert len(authenticator._judgements) == 5

    run(scenario())


def test_an_api_server_that_is_away_decides_nothing(system: System) -> None:
    away = system.server.api(port=free_port())
    token = system.token(pod=system.node_pod("node1"), audience=AUDIENCE)
    with pytest.raises(Undecided, match="cannot be checked now") as refusal:
        run(TokenReviewAuthenticator(away, system.namespace).authenticate(token))
    assert token not in str(refusal.value)


def test_without_the_right_to_ask_nothing_is_decided(system: System) -> None:
    powerless = system.server.api(system.token("other"))
    token = system.token(pod=system.node_pod("node1"), audience=AUDIENCE)
    with pytest.raises(Undecided, match=r"tokenreviews.authentication.k8s.io is forbidden"):
        run(TokenReviewAuthenticator(powerless, system.namespace).authenticate(token))


SUBJECT = "system:serviceaccount:ambit-system:ambit-node"
EXTRA = {token_review.POD_NAME: ["p"], token_review.POD_UID: ["u"], token_review.NODE_NAME: ["n"]}
USER = {"username": SUBJECT, "extra": EXTRA}
GOOD = {"authenticated": True, "audiences": [AUDIENCE], "user": USER}


@pytest.mark.parametrize(
    "change",
    [
        {"authenticated": "yes"},
        {"authenticated": False},
        {"audiences": []},
        {"audiences": None},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"user": None},
        {"user": USER | {"username": "admin"}},
        {"user": USER | {"username": "system:serviceaccount:ambit-system:ambit-node:x"}},
        {"user": USER | {"username": None}},
        {"user": USER | {"extra": {}}},
        {"user": USER | {"extra": EXTRA | {token_review.POD_NAME: ["p", "q"]}}},
        {"user": USER | {"extra": EXTRA | {token_review.POD_UID: "u"}}},
    ],
)
def test_a_review_that_does_not_say_all_of_it_proves_nothing(change: dict[str, Any]) -> None:
    """Also of authenticators that know no audiences, which answer without any."""
    assert pod_identity(bound_pod(GOOD, "token")) == PodIdentity("ambit-system", "ambit-node", "p", "u")
    with pytest.raises(Unauthenticated):
        pod_identity(bound_pod(GOOD | change, "token"))
