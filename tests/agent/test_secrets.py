"""Certificates of a node's identities: one request each, few at once, kept or missed with a reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity.credential import Credential, issued_credential
from mesh.identity.csr import request_certificate
from mesh.model.identity import SpiffeId
from mesh.runtime.control_plane import ControlError
from tests.agent.control_plane import TestAuthority
from ztunnel.agent import secrets
from ztunnel.agent.secrets import MAX_CONCURRENT, Secrets
from ztunnel.feed import Certificate, CertificateMissing

Message = Certificate | CertificateMissing


def identity(name: str) -> SpiffeId:
    return SpiffeId("cluster.local", "shop", name)


def credential(who: SpiffeId, lifetime: float = 3600, chain: bytes = b"chain") -> Credential:
    now = time.time()
    return Credential(who, chain, b"key", b"roots", now, now + lifetime)


def run(
    issue: Callable[[SpiffeId], Awaitable[Credential]], test: Callable[[Secrets], Awaitable[None]]
) -> list[Message]:
    """What was published while `test` ran."""
    published: list[Message] = []

    async def body() -> None:
        manager = Secrets(issue, published.append)
        async with asyncio.timeout(20):
            await test(manager)
        manager.close()

    asyncio.run(body())
    return published


async def until(condition: Callable[[], bool]) -> None:
    for _ in iter(condition, True):
        await asyncio.sleep(0.005)


def test_many_identities_are_fetched_few_at_a_time_and_once_each() -> None:
    identities = frozenset(identity(f"account{number}") for number in range(50))
    asked: list[SpiffeId] = []
    running = most = 0

    async def issue(who: SpiffeId) -> Credential:
        nonlocal running, most
        asked.append(who)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return credential(who)

    async def test(manager: Secrets) -> None:
        for _ in range(3):
            manager.want(identities)
        await asyncio.gather(*(manager.settled(one) for one in identities))

    published = run(issue, test)
    assert sorted(map(str, asked)) == sorted(map(str, identities))
    assert most == MAX_CONCURRENT
    assert {message.identity for message in published} == identities


def test_a_refusal_is_told_to_the_workers_and_shown() -> None:
    async def issue(who: SpiffeId) -> Credential:
        raise ControlError("the CA says no")

    async def test(manager: Secrets) -> None:
        manager.want(frozenset({identity("web")}))
        await manager.settled(identity("web"))
        assert list(manager.describe()) == [(identity("web"), None, "the CA says no")]
        assert manager.credentials() == []
        assert manager.missing() == [CertificateMissing(identity("web"), "the CA says no")]

    assert run(issue, test) == [CertificateMissing(identity("web"), "the CA says no")]


def test_a_fault_of_ours_does_not_end_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "BACKOFF_START", 0.01)
    outcomes = iter([ZeroDivisionError(), None])

    async def issue(who: SpiffeId) -> Credential:
        if problem := next(outcomes):
            raise problem
        return credential(who)

    async def test(manager: Secrets) -> None:
        manager.want(frozenset({identity("web")}))
        await until(lambda: bool(manager.credentials()))

    published = run(issue, test)
    assert [type(message) for message in published] == [CertificateMissing, Certificate]


def test_an_identity_that_left_is_forgotten_unless_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "FORGET_AFTER", 0.05)

    async def issue(who: SpiffeId) -> Credential:
        return credential(who)

    async def test(manager: Secrets) -> None:
        both = frozenset({identity("stays"), identity("goes")})
        manager.want(both)
        for one in both:
            await manager.settled(one)
        manager.want(frozenset())
        manager.want(frozenset({identity("stays")}))
        await until(lambda: len(manager.credentials()) == 1)
        assert [one.identity for one in manager.credentials()] == [identity("stays")]

    published = run(issue, test)
    assert published[-1] == CertificateMissing(identity("goes"), "no pod of this service account is left on this node")


def test_what_the_disk_kept_serves_at_once_and_is_renewed() -> None:
    asked = []

    async def issue(who: SpiffeId) -> Credential:
        asked.append(who)
        return credential(who, chain=b"new")

    async def test(manager: Secrets) -> None:
        manager.keep([credential(identity("web"), chain=b"old"), credential(identity("late"), lifetime=-1)])
        manager.want(frozenset({identity("web")}))
        assert [one.chain for one in manager.credentials()] == [b"old"]
        manager.want(frozenset({identity("web"), identity("late")}))
        assert [one.identity for one in manager.credentials()] == [identity("web")]
        await until(lambda: {one.chain for one in manager.credentials()} == {b"new"})

    published = run(issue, test)
    assert [m.chain for m in published if m.identity == identity("web") and isinstance(m, Certificate)] == [
        b"old",
        b"new",
    ]


@given(st.floats(0, 1e9), st.floats(1, 1e7), st.floats(0, 1))
def test_renewal_is_half_way_through_what_is_left(not_before: float, lifetime: float, share: float) -> None:
    one = Credential(identity("web"), b"", b"", b"", not_before, not_before + lifetime)
    received = not_before + share * lifetime
    assert one.renew_at(received) == pytest.approx((received + one.not_after) / 2)
    assert one.renew_at(not_before - 100) == pytest.approx(not_before + lifetime / 2)  # our clock is behind


def test_a_key_is_not_shown() -> None:
    secret = "the-secret"
    assert secret not in repr(replace(credential(identity("web")), private_key=secret.encode()))
    assert secret not in repr(Certificate(identity("web"), b"", secret.encode(), b""))


def answer(who: SpiffeId, asked: SpiffeId) -> tuple[bytes, list[str]]:
    """A private key, and a CA's answer to `asked` with a certificate for `who`."""
    authority = TestAuthority()
    request = request_certificate(asked)
    leaf = authority.sign(request.csr.decode(), str(who), timedelta(hours=1))
    return request.private_key, [leaf.decode(), authority.root_pem.decode()]


def test_an_answer_is_taken_apart() -> None:
    key, chain = answer(identity("web"), identity("web"))
    got = issued_credential(identity("web"), key, chain)
    assert got.chain.decode().strip() == chain[0].strip()
    assert got.roots.decode().strip() == chain[1].strip()
    assert got.private_key == key
    assert got.not_after - got.not_before == pytest.approx(3601, abs=2)


def test_an_answer_for_somebody_else_is_refused() -> None:
    key, chain = answer(identity("db"), identity("web"))
    with pytest.raises(ValueError, match=r"for spiffe://cluster\.local/ns/shop/sa/db instead of"):
        issued_credential(identity("web"), key, chain)


def test_an_answer_for_another_key_is_refused() -> None:
    key, _ = answer(identity("web"), identity("web"))
    _, chain = answer(identity("web"), identity("web"))
    with pytest.raises(ValueError, match="another key"):
        issued_credential(identity("web"), key, chain)


@pytest.mark.parametrize("chain", [[], ["x"], ["x", "y"]])
def test_an_answer_that_is_no_certificate_is_refused(chain: list[str]) -> None:
    with pytest.raises(ValueError, match="the CA sent"):
        issued_credential(identity("web"), b"", chain)
