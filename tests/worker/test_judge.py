"""Policy changes under live connections: those that it denies are cut, the others stay, and a turn stays short."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.address import Cidr, Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch
from mesh.model.state import MeshState
from mesh.model.workload import PolicyKey
from mesh.policy.evaluate import Permit
from mesh.policy.match import ConnectionFacts
from tests.model.building import pod, update
from ztunnel.plan.plan import Flag
from ztunnel.worker import judge
from ztunnel.worker.connections import HBONE, INBOUND, Book, Record
from ztunnel.worker.judge import Judge
from ztunnel.worker.loop import Loop

OWN = pod("server", "10.0.0.2")


class Carrier:
    """Counts how often it is cut; the real ones report their end to the book."""

    def __init__(self, book: Book, record: Record, defect: bool = False) -> None:
        self.book, self.record, self.defect = book, record, defect
        self.cuts: list[str] = []

    def counts(self) -> tuple[int, int]:
        return 0, 0

    def held(self) -> int:
        return 0

    def cut(self, reason: str) -> None:
        self.cuts.append(reason)
        if self.defect:
            raise RuntimeError("a defect")
        self.book.close(self.record, Flag.NONE, reason)


class Bench:
    def __init__(self) -> None:
        self.loop, self.mesh = Loop(), MeshState(update(OWN))
        self.book = Book(self.loop)
        self.judge = Judge(self.loop, self.mesh, self.book)

    def connection(self, source: str, account: str = "client", defect: bool = False) -> Carrier:
        remote = SocketAddress(Ip(source), 4000)
        record = Record(INBOUND, HBONE, OWN.uid, remote, SocketAddress(Ip("10.0.0.2"), 80))
        peer = SpiffeId("cluster.local", "ns1", account)
        record.permit = Permit(ConnectionFacts(remote.ip, record.destination, peer), None, "")
        carrier = record.carrier = Carrier(self.book, record, defect)
        self.book.open(record)
        return carrier

    def change(self, *things: Any, **more: Any) -> None:
        self.mesh.apply(update(*things, **more))
        self.judge.policy_changed()

    def turns(self) -> int:
        """Until nothing is left to judge."""
        for number in range(10_000):
            if not self.judge._waiting and not self.judge._again:
                return number
            self.loop.turn()
        raise AssertionError("it never ends")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def deny(scope: PolicyScope = PolicyScope.NAMESPACE, **match: Any) -> Authorization:
    return Authorization("p", "ns1", scope, Action.DENY, (Rule((Clause((Match(**match),)),)),))


def from_ip(ip: str) -> Authorization:
    return deny(source_ips=(Cidr(Ip(ip), 32),))


def test_only_those_that_it_denies_are_cut(bench: Bench) -> None:
    bad, good = bench.connection("10.0.0.1"), bench.connection("10.0.0.9")
    bench.change(from_ip("10.0.0.1"))
    bench.turns()
    assert len(bad.cuts) == 1
    assert bad.cuts[0].startswith("cut because policy has changed: policy ns1/p denies")
    assert bad.record.flag is Flag.DENY
    assert not good.cuts


def test_a_reference_to_a_policy_that_has_not_come_cuts(bench: Bench) -> None:
    one = bench.connection("10.0.0.1")
    bench.change(pod("server", "10.0.0.2", authorization_policies=(PolicyKey("ns1/unseen"),)))
    bench.turns()
    assert "has not been delivered" in one.cuts[0]


def test_policies_are_told_by_the_identity_that_was_permitted(bench: Bench) -> None:
    one, other = bench.connection("10.0.0.1", "client"), bench.connection("10.0.0.1", "other")
    bench.change(deny(service_accounts=(ServiceAccountMatch("ns1", "client"),)))
    bench.turns()
    assert (len(one.cuts), len(other.cuts)) == (1, 0)


def test_a_turn_looks_at_a_bounded_number(bench: Bench) -> None:
    many = [bench.connection(f"10.1.{n // 250}.{n % 250}") for n in range(4 * judge.VERDICTS)]
    bench.change(deny(destination_ports=(80,)))
    bench.loop.turn()
    assert sum(len(each.cuts) for each in many) <= judge.VERDICTS
    assert bench.turns() >= 3
    assert all(len(each.cuts) == 1 for each in many)


def test_equal_connections_cost_one_verdict(bench: Bench) -> None:
    many = [bench.connection("10.0.0.1") for _ in range(judge.RECORDS)]
    bench.change(from_ip("10.0.0.1"))
    bench.loop.turn()
    assert all(len(each.cuts) == 1 for each in many)


def test_changes_that_never_end_keep_it_from_nobody(bench: Bench) -> None:
    first = bench.connection("10.0.0.1")
    many = [bench.connection(f"10.1.{n // 250}.{n % 250}") for n in range(8 * judge.VERDICTS)]
    bench.change(deny(destination_ports=(80,)))
    for _ in range(20):
        if bench.judge._waiting:
            bench.loop.turn()
        bench.change(from_ip("10.9.9.9"), deny(destination_ports=(80,)))
    assert all(each.cuts for each in (first, *many))


def test_a_later_policy_is_applied_to_those_that_were_judged_already(bench: Bench) -> None:
    many = [bench.connection(f"10.1.{n // 250}.{n % 250}") for n in range(3 * judge.VERDICTS)]
    bench.change(from_ip("10.9.9.9"))
    bench.loop.turn()
    bench.change(deny(destination_ports=(80,)))
    bench.turns()
    assert all(len(each.cuts) == 1 for each in many)


def test_a_defect_in_one_connection_spares_no_other(bench: Bench) -> None:
    many = [bench.connection("10.0.0.1", defect=n == 1) for n in range(3)]
    bench.change(from_ip("10.0.0.1"))
    bench.turns()
    assert all(each.cuts for each in many)
