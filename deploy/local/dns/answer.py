"""The answer to a query about a name of the cluster: pure; None for a query that others have to answer."""

from __future__ import annotations

from dnslib import AAAA, CLASS, CNAME, OPCODE, PTR, QTYPE, RCODE, RR, SOA, SRV, A, DNSRecord

from deploy.local.dns.names import Name, Names
from mesh.model.address import is_v6

TTL = 5  # seconds; CoreDNS' default for Kubernetes: endpoints come and go
LARGEST_PLAIN_UDP = 512  # RFC 1035 section 4.2.1, unless EDNS says more
MOST_ALIASES = 8  # one after another: names may point at each other in a circle


def answer(query: DNSRecord, names: Names, domain: str, turn: int) -> DNSRecord | None:
    """`turn` rotates the addresses. A name below `domain` is answered here and nowhere else: if there is no such name,
    with NXDOMAIN. Reverse names are answered only if they are known. An answer that ends with an alias to a name of
    others is complete only together with theirs (`open_alias`)."""
    if query.header.opcode != OPCODE.QUERY:
        return failure(query, RCODE.NOTIMP)
    if query.q.qclass != CLASS.IN:
        return None
    asked = str(query.q.qname).rstrip(".").lower()
    name = names.get(asked)
    inside = asked == domain or asked.endswith("." + domain)
    if name is None and not inside:
        return None
    reply: DNSRecord = query.reply(ra=1, aa=1)
    if name is None:
        reply.header.rcode = RCODE.NXDOMAIN
    else:
        for record in _records(asked, query, names, turn):
            reply.add_answer(record)
    if not reply.rr:
        reply.add_auth(_authority(domain))
    return reply


def open_alias(reply: DNSRecord, domain: str) -> str:
    """The name of others that an answer ends with, and that they have to be asked for; "" if it ends otherwise."""
    if not reply.rr or reply.rr[-1].rtype != QTYPE.CNAME or reply.q.qtype == QTYPE.CNAME:
        return ""
    target = str(reply.rr[-1].rdata).rstrip(".")
    return "" if target.endswith("." + domain) else target


def fit(reply: DNSRecord, query: DNSRecord) -> bytes:
    """As it goes over UDP: cut, and marked so, when it is larger than the asker can take."""
    limit = max([LARGEST_PLAIN_UDP, *(each.edns_len for each in query.ar if each.rtype == QTYPE.OPT)])
    packed: bytes = reply.pack()
    return packed if len(packed) <= limit else bytes(reply.truncate().pack())


def failure(query: DNSRecord, code: int = RCODE.SERVFAIL) -> DNSRecord:
    reply: DNSRecord = query.reply(ra=1, aa=0)
    reply.header.rcode = code
    return reply


def _records(asked: str, query: DNSRecord, names: Names, turn: int) -> list[RR]:
    """Of the asked name, and of those that its aliases lead to, as far as they are known here (RFC 1034, 4.3.2)."""
    owner, kind, found = query.q.qname, query.q.qtype, []
    for _ in range(MOST_ALIASES):
        name = names.get(asked)
        if name is None or not name.alias:
            break
        found.append(RR(owner, QTYPE.CNAME, ttl=TTL, rdata=CNAME(name.alias)))
        asked = owner = name.alias
        if kind == QTYPE.CNAME:
            return found
    return found + (_own_records(name, owner, kind, turn) if name else [])


def _own_records(name: Name, owner: object, kind: int, turn: int) -> list[RR]:
    if kind in (QTYPE.A, QTYPE.AAAA):
        found = sorted(ip for ip in name.addresses if is_v6(ip) == (kind == QTYPE.AAAA))
        found = found[turn % len(found) :] + found[: turn % len(found)] if found else []
        return [RR(owner, kind, ttl=TTL, rdata=AAAA(ip) if kind == QTYPE.AAAA else A(ip)) for ip in found]
    if kind == QTYPE.SRV:
        return [RR(owner, kind, ttl=TTL, rdata=SRV(0, 100, each.port, each.target)) for each in sorted(name.services)]
    if kind == QTYPE.PTR and name.pointer:
        return [RR(owner, kind, ttl=TTL, rdata=PTR(name.pointer))]
    return []


def _authority(domain: str) -> RR:
    """How long a negative answer may be kept (RFC 2308)."""
    times = (1, 7200, 1800, 86400, TTL)
    return RR(domain, QTYPE.SOA, ttl=TTL, rdata=SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", times))
