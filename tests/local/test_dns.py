"""What pods are answered about names of the cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dnslib import CLASS, EDNS0, OPCODE, QTYPE, RCODE, DNSQuestion, DNSRecord
from dnslib.server import BaseResolver, DNSServer

from deploy.local.controllers import endpoint_slices
from deploy.local.controllers.actions import Apply
from deploy.local.dns.answer import MOST_ALIASES, answer, fit, open_alias
from deploy.local.dns.names import Names, names
from deploy.local.dns.server import DnsServer, resolvers
from mesh.model.address import Ip, SocketAddress
from tests.local import objects

DOMAIN = "cluster.local"
DUAL = {"clusterIPs": ["10.96.0.20", "fd00:10:96::20"], "ipFamilyPolicy": "RequireDualStack"}


def cluster(*found: dict[str, Any]) -> Names:
    made = [each.object for each in endpoint_slices.reconcile(objects.seen(*found)) if isinstance(each, Apply)]
    services = [each for each in found if each["kind"] == "Service"]
    return names(DOMAIN, [objects.namespace()], services, made)


SHOP = cluster(
    objects.service(**DUAL),
    objects.service("four", clusterIPs=["10.96.0.21"]),
    objects.service("peers", clusterIP="None", ipFamilyPolicy="RequireDualStack"),
    objects.service("elsewhere", type="ExternalName", externalName="Example.COM.", selector={}),
    objects.service("alias", type="ExternalName", externalName="web.shop.svc.cluster.local", selector={}),
    objects.service("twice", type="ExternalName", externalName="elsewhere.shop.svc.cluster.local", selector={}),
    objects.service("circle", type="ExternalName", externalName="circle.shop.svc.cluster.local", selector={}),
    objects.pod("web-0", hostname="web-0", subdomain="peers"),
    objects.pod("web-1", ips=("10.244.1.3",)),
    objects.pod("web-2", ips=("10.244.1.4",), ready=False),
)


def question(name: str, kind: str = "A") -> DNSRecord:
    number = int(kind.removeprefix("TYPE")) if kind.startswith("TYPE") else QTYPE.reverse[kind]
    return DNSRecord(q=DNSQuestion(name, number))


def ask(name: str, kind: str = "A", known: Names = SHOP) -> tuple[int, list[str]] | None:
    """Code and records; None when it is nobody's business here."""
    reply = answer(question(name, kind), known, DOMAIN, 0)
    return None if reply is None else (reply.header.rcode, [str(each.rdata).rstrip(".") for each in reply.rr])


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("web.shop.svc.cluster.local", "A", ["10.96.0.20"]),
        ("WEB.Shop.svc.Cluster.Local.", "A", ["10.96.0.20"]),
        ("web.shop.svc.cluster.local", "AAAA", ["fd00:10:96::20"]),
        ("four.shop.svc.cluster.local", "AAAA", []),
        ("web.shop.svc.cluster.local", "TXT", []),
        ("peers.shop.svc.cluster.local", "A", ["10.244.1.2", "10.244.1.3"]),
        ("web-0.peers.shop.svc.cluster.local", "A", ["10.244.1.2"]),
        ("web-0.peers.shop.svc.cluster.local", "AAAA", ["fd00::2"]),
        ("elsewhere.shop.svc.cluster.local", "A", ["example.com"]),
        ("alias.shop.svc.cluster.local", "A", ["web.shop.svc.cluster.local", "10.96.0.20"]),
        ("alias.shop.svc.cluster.local", "CNAME", ["web.shop.svc.cluster.local"]),
        ("twice.shop.svc.cluster.local", "AAAA", ["elsewhere.shop.svc.cluster.local", "example.com"]),
        ("circle.shop.svc.cluster.local", "A", ["circle.shop.svc.cluster.local"] * MOST_ALIASES),
        ("web.shop.svc.cluster.local", "TYPE65534", []),
        ("_http._tcp.web.shop.svc.cluster.local", "SRV", ["0 100 80 web.shop.svc.cluster.local"]),
        ("20.0.96.10.in-addr.arpa", "PTR", ["web.shop.svc.cluster.local"]),
        ("shop.svc.cluster.local", "A", []),
        ("svc.cluster.local", "A", []),
    ],
)
def test_names_that_exist(name: str, kind: str, records: list[str]) -> None:
    assert ask(name, kind) == (RCODE.NOERROR, records)


@pytest.mark.parametrize("name", ["nope.shop.svc.cluster.local", "web.nope.svc.cluster.local", "x.cluster.local"])
def test_names_below_the_domain_that_do_not_exist(name: str) -> None:
    assert ask(name) == (RCODE.NXDOMAIN, [])


@pytest.mark.parametrize("name", ["example.com", "local", "4.3.2.1.in-addr.arpa", "notcluster.local"])
def test_names_of_others(name: str) -> None:
    assert ask(name) is None


def test_other_classes_are_others_business() -> None:
    chaos = DNSRecord(q=DNSQuestion("web.shop.svc.cluster.local", QTYPE.A, CLASS.CH))
    assert answer(chaos, SHOP, DOMAIN, 0) is None


def test_only_queries_are_implemented() -> None:
    update = question("web.shop.svc.cluster.local")
    update.header.opcode = OPCODE.UPDATE
    reply = answer(update, SHOP, DOMAIN, 0)
    assert reply is not None
    assert (reply.header.rcode, reply.rr) == (RCODE.NOTIMP, [])


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("elsewhere", "A", "example.com"),
        ("elsewhere", "CNAME", ""),
        ("alias", "A", ""),
        ("alias", "TXT", ""),
        ("web", "A", ""),
    ],
)
def test_an_alias_to_a_name_of_others_is_left_to_them(name: str, kind: str, target: str) -> None:
    reply = answer(question(f"{name}.shop.svc.cluster.local", kind), SHOP, DOMAIN, 0)
    assert reply is not None
    assert open_alias(reply, DOMAIN) == target


def test_a_query_for_an_alias_is_answered_whole() -> None:
    """Stub resolvers do not follow it: the resolver of the node asks for the name that it leads to."""
    upstream = DNSServer(_Upstream(), address="127.0.0.1", port=0, tcp=True)
    upstream.start_thread()
    try:
        asked = asyncio.run(_served("elsewhere.shop.svc.cluster.local", upstream.server.server_address[1]))
        assert [str(each.rdata) for each in asked.rr] == ["example.com.", "192.0.2.7"]
    finally:
        upstream.stop()
        upstream.server.server_close()


async def _served(name: str, upstream: int) -> DNSRecord:
    server = DnsServer(lambda: SHOP, DOMAIN, (SocketAddress(Ip("127.0.0.1"), upstream),))
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    server.begin(question(name).pack(), answered.set_result)
    return DNSRecord.parse(await answered)


class _Upstream(BaseResolver):  # type: ignore[misc]
    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        return (
            request.reply() if str(request.q.qname) != "example.com." else request.replyZone("example.com. A 192.0.2.7")
        )


def test_a_negative_answer_says_how_long_it_holds() -> None:
    reply = answer(DNSRecord.question("nope.shop.svc.cluster.local"), SHOP, DOMAIN, 0)
    assert reply is not None
    assert [QTYPE[each.rtype] for each in reply.auth] == ["SOA"]


def test_addresses_rotate() -> None:
    question = DNSRecord.question("peers.shop.svc.cluster.local")
    firsts = {str(reply.rr[0].rdata) for turn in range(2) if (reply := answer(question, SHOP, DOMAIN, turn))}
    assert firsts == {"10.244.1.2", "10.244.1.3"}


def test_a_large_answer_is_cut_to_what_the_asker_takes() -> None:
    pods = [objects.pod(f"web-{index}", ips=(f"10.244.1.{index}",)) for index in range(2, 100)]
    known = cluster(objects.service(clusterIP="None"), *pods)
    question = DNSRecord.question("web.shop.svc.cluster.local")
    reply = answer(question, known, DOMAIN, 0)
    assert reply is not None
    cut = DNSRecord.parse(fit(reply, question))
    assert cut.header.tc == 1
    large = DNSRecord.question("web.shop.svc.cluster.local")
    large.add_ar(EDNS0(udp_len=4096))
    assert len(DNSRecord.parse(fit(reply, large)).rr) == 98


def test_resolvers_of_the_machine() -> None:
    text = "# comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver nonsense\nsearch x\n"
    assert [str(each) for each in resolvers(text)] == ["192.0.2.1:53", "[2001:db8::1]:53"]
