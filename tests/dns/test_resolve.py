"""Names that the mesh answers: Istio's vectors (client in ns1, network nw1)."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.state import MeshState
from mesh.model.workload import IpFamilies, ServiceKey, Visibility, WorkloadStatus
from tests.dns.asking import question
from tests.model.building import mesh, pod, service
from ztunnel.dns.message import Records
from ztunnel.dns.resolve import Client, Forward, Zone, resolve

DOMAIN = "cluster.local"
CLIENT = Client("ns1", "nw1")


def key(name: str, namespace: str = "ns1") -> ServiceKey:
    return ServiceKey(f"{namespace}/{name}.{namespace}.svc.{DOMAIN}")


def nw1(name: str, *vips: str, **fields: Any) -> Any:
    return service(name, *vips, network="nw1", **fields)


def endpoint(name: str, *ips: str, of: ServiceKey, **fields: Any) -> Any:
    return pod(name, *ips, services={of: {}}, **({"network": "nw1"} | fields))


STATE = mesh(
    nw1("productpage", "9.9.9.9"),
    nw1("details", "9.9.9.8", namespace="ns2"),
    nw1("dual", "9.9.9.7", "fd00::7"),
    nw1("six-only", "9.9.9.6", "fd00::6", ip_families=IpFamilies.IPV6_ONLY),
    nw1("far", "nw2|9.9.9.5"),
    nw1("both", "nw2|9.9.9.4", "9.9.9.3"),
    nw1("hidden", "9.9.9.2", namespace="ns2", visibility=Visibility.NAMESPACE),
    nw1("private", "9.9.9.1", visibility=Visibility.NAMESPACE),
    nw1("block", "11.0.0.0/8", hostname="block.example.com"),
    nw1("block-and-address", "11.0.0.0/8", "11.1.1.1", hostname="mixed.example.com"),
    nw1("external", "12.0.0.1", hostname="www.example.com"),
    nw1("wild", "12.0.0.2", hostname="*.wildcard"),
    nw1("wilder", "12.0.0.3", hostname="*.very.wildcard"),
    nw1("other-domain", "12.0.0.4", hostname="preferred.ns1.svc.otherdomain.com"),
    nw1("headless"),
    endpoint("h-0", "30.30.30.30", "2001:db8::30", of=key("headless"), workload_name="h"),
    endpoint("h-1", "30.30.30.31", of=key("headless"), workload_name="h"),
    endpoint("h-sick", "30.30.30.32", of=key("headless"), status=WorkloadStatus.UNHEALTHY),
    endpoint("h-far", "30.30.30.33", of=key("headless"), network="nw2"),
    endpoint("deployed-5d4f8-x2x7k", "30.30.30.34", of=key("headless"), workload_name="deployed"),
    nw1("idle"),
    nw1("headless-external", hostname="headless.example.com"),
    endpoint("e-0", "31.0.0.1", of=ServiceKey("ns1/headless.example.com")),
)
HEADLESS = {"30.30.30.30", "30.30.30.31", "30.30.30.34"}


def ask(
    name: str, kind: str = "A", client: Client = CLIENT, state: MeshState = STATE, chance: float = 0.0
) -> Records | Forward:
    return resolve(question(name, kind), client, state, Zone(), lambda: chance)


@pytest.mark.parametrize(
    ("name", "kind", "alias", "addresses"),
    [
        # Kubernetes' short forms, under the asked name
        ("productpage.", "A", "", {"9.9.9.9"}),
        ("productpage.ns1.", "A", "", {"9.9.9.9"}),
        ("productpage.ns1.svc.", "A", "", {"9.9.9.9"}),
        ("productpage.ns1.svc.cluster.local.", "A", "", {"9.9.9.9"}),
        ("PRODUCTPAGE.Ns1.svc.Cluster.LOCAL.", "A", "", {"9.9.9.9"}),
        ("details.ns2.", "A", "", {"9.9.9.8"}),
        ("details.ns2.svc.cluster.local.", "A", "", {"9.9.9.8"}),
        # what a stub resolver makes of them with its search domains
        ("productpage.ns1.ns1.svc.cluster.local.", "A", "productpage.ns1", {"9.9.9.9"}),
        ("productpage.ns1.svc.ns1.svc.cluster.local.", "A", "productpage.ns1.svc", {"9.9.9.9"}),
        ("details.ns2.svc.cluster.local.ns1.svc.cluster.local.", "A", "details.ns2.svc.cluster.local", {"9.9.9.8"}),
        ("www.example.com.ns1.svc.cluster.local.", "A", "www.example.com", {"12.0.0.1"}),
        ("www.example.com.svc.cluster.local.", "A", "www.example.com", {"12.0.0.1"}),
        ("www.example.com.cluster.local.", "A", "www.example.com", {"12.0.0.1"}),
        ("www.example.com.", "A", "", {"12.0.0.1"}),
        # families
        ("productpage.", "AAAA", "", set()),
        ("dual.", "A", "", {"9.9.9.7"}),
        ("dual.", "AAAA", "", {"fd00::7"}),
        ("six-only.", "A", "", set()),
        ("six-only.", "AAAA", "", {"fd00::6"}),
        # networks
        ("far.", "A", "", set()),
        ("both.", "A", "", {"9.9.9.3"}),
        # visibility
        ("private.", "A", "", {"9.9.9.1"}),
        # wildcards
        ("foo.wildcard.", "A", "", {"12.0.0.2"}),
        ("a.b.wildcard.", "A", "", {"12.0.0.2"}),
        ("foo.very.wildcard.", "A", "", {"12.0.0.3"}),
        ("very.wildcard.", "A", "", {"12.0.0.2"}),
        ("foo.wildcard.ns1.svc.cluster.local.", "A", "", {"12.0.0.2"}),
        # another cluster domain, by its full name
        ("preferred.ns1.svc.otherdomain.com.", "A", "", {"12.0.0.4"}),
        # headless services
        ("headless.", "A", "", HEADLESS),
        ("headless.ns1.svc.cluster.local.", "AAAA", "", {"2001:db8::30"}),
        ("mixed.example.com.", "A", "", {"11.1.1.1"}),
        # pods of stateful sets
        ("h-0.headless.ns1.svc.cluster.local.", "A", "", {"30.30.30.30"}),
        ("h-0.headless.ns1.svc.cluster.local.", "AAAA", "", {"2001:db8::30"}),
        ("h-1.headless.ns1.svc.cluster.local.", "AAAA", "", set()),
        ("h-1.headless.ns1.svc.", "A", "", {"30.30.30.31"}),
        (
            "h-1.headless.ns1.svc.cluster.local.svc.cluster.local.",
            "A",
            "h-1.headless.ns1.svc.cluster.local",
            {"30.30.30.31"},
        ),
    ],
)
def test_answered(name: str, kind: str, alias: str, addresses: set[str]) -> None:
    found = ask(name, kind)
    assert isinstance(found, Records)
    assert (found.alias, set(found.addresses)) == (alias, addresses)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("details.", "A"),  # another namespace's, by its short name
        ("www.google.com.", "A"),
        ("unknown.ns1.svc.cluster.local.", "A"),
        ("preferred.ns1.svc.", "A"),  # another cluster domain, by a short name
        ("preferred.", "A"),
        ("wildcard.", "A"),
        ("hidden.ns2.svc.cluster.local.", "A"),
        ("block.example.com.", "A"),
        ("headless.example.com.", "A"),
        ("idle.", "A"),  # nothing healthy: the cluster's DNS may know more
        ("h-sick.headless.ns1.svc.cluster.local.", "A"),
        ("h-far.headless.ns1.svc.cluster.local.", "A"),
        ("deployed-5d4f8-x2x7k.headless.ns1.svc.cluster.local.", "A"),  # its hostname is not known
        ("h-9.headless.ns1.svc.cluster.local.", "A"),
        ("productpage.", "NS"),
        ("productpage.", "SRV"),
        ("_http._tcp.productpage.ns1.svc.cluster.local.", "SRV"),
        ("productpage.", "ANY"),
        ("9.9.9.9.in-addr.arpa.", "PTR"),
        (".", "A"),
        ("cluster.local.", "A"),
        ("svc.cluster.local.", "A"),
        ("ns1.svc.cluster.local.", "A"),
    ],
)
def test_forwarded(name: str, kind: str) -> None:
    found = ask(name, kind)
    assert isinstance(found, Forward)
    assert found.reason


def test_a_short_name_is_that_of_the_clients_namespace() -> None:
    assert ask("details.", client=Client("ns2", "nw1")) == Records(("9.9.9.8",))  # type: ignore[arg-type]


def test_one_hostname_in_several_namespaces() -> None:
    host = "api.example.com"
    rivals = [nw1(f"in-{n}", f"10.0.0.{i}", namespace=n, hostname=host) for i, n in enumerate(("a", "b", "c"), 1)]

    def answered(namespace: str, *others: Any, preferred: str = "") -> tuple[str, ...]:
        state = mesh(*rivals, *others)
        found = resolve(question(host), Client(namespace, "nw1"), state, Zone(preferred_namespace=preferred), lambda: 0)
        assert isinstance(found, Records)
        return found.addresses

    canonical = nw1("d", "10.0.0.9", namespace="d", hostname=host, canonical=True)
    assert answered("b") == ("10.0.0.2",)
    assert answered("elsewhere") == ("10.0.0.1",)
    assert answered("elsewhere", preferred="c") == ("10.0.0.3",)
    assert answered("elsewhere", canonical, preferred="c") == ("10.0.0.9",)


def test_another_cluster_domain_can_be_the_own_one() -> None:
    state = mesh(nw1("web", "9.9.9.9", hostname="web.ns1.svc.example.org"))
    found = resolve(question("web."), CLIENT, state, Zone("example.org"), lambda: 0.0)
    assert found == Records(("9.9.9.9",))  # type: ignore[arg-type]


def test_addresses_come_in_changing_order() -> None:
    orders = {ask("headless.", chance=chance).addresses for chance in (0.0, 0.99)}  # type: ignore[union-attr]
    assert len(orders) == 2
