"""PeerAuthentication: which plain text a pod refuses, told by what its policies do to a connection."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.policy.evaluate import Permit, evaluate
from mesh.policy.match import ConnectionFacts
from tests.compile.objects import Mesh, Object, pod

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
WEB = {"matchLabels": {"app": "web"}}
OWN = pod("web-1", "10.1.0.1", labels={"app": "web"})


def authentication(mode: str = "", name: str = "p", namespace: str = "shop", created: str = OLD, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    spec |= {"mtls": {"mode": mode}} if mode else {}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": metadata, "spec": spec}


def mesh_wide(mode: str, **more: Any) -> Object:
    return authentication(mode, "mesh", "istio-system", **more)


def of_web(mode: str = "", name: str = "web", created: str = OLD, **ports: str) -> Object:
    by_port = {number.removeprefix("port"): {"mode": its} for number, its in ports.items()}
    return authentication(mode, name, created=created, selector=WEB, portLevelMtls=by_port)


def takes(mesh: Mesh, port: int = 8080, peer: SpiffeId | None = None) -> bool:
    """Whether the pod takes plain text on a port, as a ztunnel with the whole mesh decides."""
    state = MeshState(mesh.compiler.everything())
    policies = state.policies_for(mesh.pod())
    assert not policies.missing, "a policy that is named is there"
    facts = ConnectionFacts(Ip("10.9.9.9"), SocketAddress(Ip("10.1.0.1"), port), peer)
    return isinstance(evaluate(policies, facts), Permit)


CASES: dict[str, tuple[list[Object], bool, bool]] = {  # objects; takes plain text on 8080; on 9090
    "nothing": ([], True, True),
    "mesh strict": ([mesh_wide("STRICT")], False, False),
    "own root namespace": ([authentication("STRICT", namespace="ambit-system")], False, False),
    "another namespace": ([authentication("STRICT", namespace="other")], True, True),
    "namespace strict": ([authentication("STRICT")], False, False),
    "namespace over mesh": ([mesh_wide("STRICT"), authentication("PERMISSIVE")], True, True),
    "disable": ([mesh_wide("STRICT"), authentication("DISABLE")], True, True),
    "unset is the mesh's": ([mesh_wide("STRICT"), authentication("UNSET")], False, False),
    "nothing said is the mesh's": ([mesh_wide("STRICT"), authentication()], False, False),
    "workload over namespace": ([authentication("STRICT"), of_web("PERMISSIVE")], True, True),
    "workload strict": ([of_web("STRICT")], False, False),
    "unset workload is the namespace's": ([authentication("STRICT"), of_web("UNSET")], False, False),
    "port open": ([of_web("STRICT", port8080="PERMISSIVE")], True, False),
    "port disabled": ([of_web("STRICT", port8080="DISABLE")], True, False),
    "port strict": ([of_web("PERMISSIVE", port8080="STRICT")], False, True),
    "port over inherited": ([mesh_wide("STRICT"), of_web(port8080="DISABLE")], True, False),
    "unset port": ([authentication("STRICT"), of_web("UNSET", port8080="UNSET")], False, False),
    "port says the same": ([of_web("STRICT", port8080="STRICT")], False, False),
    "others' ports": ([authentication("STRICT", selector={"matchLabels": {"app": "db"}})], True, True),
    "oldest of workload": ([of_web("STRICT", "a", NEW), of_web("PERMISSIVE", "b", OLD)], True, True),
    "oldest of namespace": (
        [authentication("STRICT", "b"), authentication("PERMISSIVE", "a", created=NEW)],
        False,
        False,
    ),
    "equal age, by name": ([of_web("STRICT", "a"), of_web("PERMISSIVE", "b")], False, False),
    "unreadable": ([{**authentication("PERMISSIVE"), "spec": {"mtls": 7}}], False, False),
    "bad mode": ([authentication("ON")], False, False),
    "bad port": ([of_web("PERMISSIVE", port0="DISABLE")], False, False),
    "ports without selector": ([authentication(portLevelMtls={"8080": {"mode": "DISABLE"}})], False, False),
}


@pytest.mark.parametrize(("objects", "on_8080", "on_9090"), CASES.values(), ids=CASES)
def test_plain_text(objects: list[Object], on_8080: bool, on_9090: bool) -> None:
    for order in (objects, objects[::-1]):
        mesh = Mesh(OWN, *order)
        assert (takes(mesh), takes(mesh, 9090)) == (on_8080, on_9090)
        mesh = Mesh(*order, OWN)
        assert (takes(mesh), takes(mesh, 9090)) == (on_8080, on_9090)


@pytest.mark.parametrize("objects", [objects for objects, *_ in CASES.values()], ids=CASES)
def test_tunnels_are_taken_in_every_mode(objects: list[Object]) -> None:
    assert takes(Mesh(OWN, *objects), peer=SpiffeId("cluster.local", "other", "client"))


@pytest.mark.parametrize(("objects", "on_8080", "on_9090"), CASES.values(), ids=CASES)
def test_what_goes_leaves_nothing(objects: list[Object], on_8080: bool, on_9090: bool) -> None:
    mesh = Mesh(OWN, *objects)
    mesh.delete(*objects)
    assert takes(mesh)
    assert takes(mesh, 9090)
    assert mesh.pod().authorization_policies == ()
    assert not mesh.sentences()
    assert len(mesh.compiler.everything().policies) == 1, "only the mesh's own"


def test_a_wider_policy_changes_what_a_narrower_one_with_ports_means() -> None:
    mesh = Mesh(OWN, of_web(port8080="DISABLE"))
    assert (takes(mesh), takes(mesh, 9090)) == (True, True)
    wide = mesh_wide("STRICT")
    mesh.apply(wide)
    assert (takes(mesh), takes(mesh, 9090)) == (True, False)
    mesh.apply(authentication("PERMISSIVE", "namespace"))
    assert (takes(mesh), takes(mesh, 9090)) == (True, True)


def test_what_cannot_be_read_says_so() -> None:
    (sentence,) = Mesh(authentication("ON")).sentences()
    assert sentence.startswith("PeerAuthentication shop/p: spec: it cannot be enforced as written and is STRICT")
