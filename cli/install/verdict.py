"""What speaks for and against a mesh on this cluster, decided from what the API server says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controller.store.interface import Object

OLDEST_KUBERNETES = (1, 30)  # token reviews name the node of a pod's token
OLDEST_KERNEL = (5, 15)  # netns cookies in sockops programs (ebpf.features)
TESTED_KERNEL = (6, 1)
RUNTIMES = ("containerd", "cri-o")  # whose cgroups and CNI the node agent knows
GATEWAY_API = "gateway.networking.k8s.io"
ENFORCE = "pod-security.kubernetes.io/enforce"
PRIVILEGED = "privileged"
CGROUP2 = "cgroup v2"  # a feature (ebpf.features)
MOST_NAMES = 5  # of nodes in one line


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"  # Ambit works, something of it does not
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """`remedy` is a sentence that says what to do; empty when there is nothing to do."""

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class OtherMesh:
    """Known by a workload's name. `remedy` for what stands in Ambit's way, else for what must be set."""

    name: str
    workloads: frozenset[str]
    status: Status
    remedy: str


MESHES = (
    OtherMesh(
        "Istio ambient",
        frozenset({"istio-cni-node", "ztunnel"}),
        Status.FAILED,
        "both would capture the same pods: uninstall it (istioctl uninstall --purge), or give Ambit another cluster",
    ),
    OtherMesh(
        "Linkerd",
        frozenset({"linkerd-destination", "linkerd-cni"}),
        Status.WARNING,
        "its sidecars and Ambit must not serve the same pods: enrol no namespace that has linkerd.io/inject",
    ),
    OtherMesh(
        "Kmesh",
        frozenset({"kmesh"}),
        Status.FAILED,
        "both would attach to the same sockets: uninstall it (helm uninstall kmesh -n kmesh-system)",
    ),
    OtherMesh(
        "Cilium",
        frozenset({"cilium"}),
        Status.WARNING,
        "set cni.exclusive=false and socketLB.hostNamespaceOnly=true in Cilium's values, or it removes Ambit's CNI "
        "entry and rewrites Services' addresses before Ambit sees them",
    ),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read of a cluster. `resources` are those of the Gateway API; `labels` of Ambit's own namespace, None
    when there is none."""

    version: str
    nodes: Sequence[Object]
    workloads: Sequence[Object] = ()  # DaemonSets and Deployments of all namespaces
    resources: frozenset[str] = frozenset()
    labels: Mapping[str, str] | None = None
    namespace: str = "ambit-system"
    may_install: bool = True
    features: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """By node, each feature that a node lacks, with its remedy; only of nodes that could be asked."""
    cgroups: Mapping[str, int] = field(default_factory=dict)
    """By node, the version of cgroups that its kubelet works with; only of nodes whose kubelet has said so."""


def judge(facts: Facts) -> list[Check]:
    """All checks, in the order in which they should be read."""
    return [
        kubernetes(facts.version),
        rights(facts.may_install),
        *nodes(facts),
        cgroups(facts),
        pod_security(facts),
        *other_meshes(facts),
        gateway_api(facts.resources),
    ]


def kubernetes(version: str) -> Check:
    wanted = ".".join(map(str, OLDEST_KUBERNETES))
    if numbers(version) >= OLDEST_KUBERNETES:
        return Check("Kubernetes version", Status.OK, version)
    return Check("Kubernetes version", Status.FAILED, version, f"upgrade the cluster to Kubernetes {wanted} or newer")


def rights(may_install: bool) -> Check:
    if may_install:
        return Check("your rights", Status.OK, "you may make cluster roles")
    remedy = "ask an administrator of the cluster to install Ambit, or for the role cluster-admin"
    return Check("your rights", Status.FAILED, "you may not make cluster roles", remedy)


def nodes(facts: Facts) -> Iterator[Check]:
    """One for what all nodes have in common, one for each node that has a problem."""
    linux = [node for node in facts.nodes if node["status"]["nodeInfo"].get("operatingSystem", "linux") == "linux"]
    if not linux:
        yield Check("nodes", Status.FAILED, "there is no Linux node", "add a Linux node to the cluster")
        return
    problems = [check for node in linux for check in node_problems(node, facts.features)]
    if not problems:
        asked = f", {len(facts.features)} of them asked" if facts.features else ", judged by their versions"
        yield Check("nodes", Status.OK, f"{len(linux)} Linux nodes{asked}")
    yield from problems


def node_problems(node: Object, features: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[Check]:
    name, info = node["metadata"]["name"], node["status"]["nodeInfo"]
    kernel, runtime = info.get("kernelVersion", ""), info.get("containerRuntimeVersion", "")
    if not is_ready(node):
        remedy = f"Ambit comes to it once it is: see kubectl describe node {name}"
        yield Check(f"node {name}", Status.WARNING, "it is not ready", remedy)
    if name in features:
        for feature, remedy in features[name]:
            yield Check(f"node {name}", Status.FAILED, f"no {feature}", remedy)
    elif numbers(kernel) < OLDEST_KERNEL:
        remedy = "give the node a kernel of 6.1 or newer: it has no netns cookies in sockops programs"
        yield Check(f"node {name}", Status.FAILED, f"kernel {kernel}", remedy)
    elif numbers(kernel) < TESTED_KERNEL:
        yield Check(f"node {name}", Status.WARNING, f"kernel {kernel}", "Ambit is tested from Linux 6.1 on: update it")
    if runtime.partition(":")[0] not in RUNTIMES:
        remedy = "use containerd or CRI-O: the node agent finds pods by the cgroups that those make"
        yield Check(f"node {name}", Status.WARNING, f"container runtime {runtime or 'unknown'}", remedy)


def cgroups(facts: Facts) -> Check:
    """Programs attach to cgroup v2. A kubelet that works with v1 does not tell whether v2 is mounted beside it."""
    asked = {node: 1 if CGROUP2 in dict(missing) else 2 for node, missing in facts.features.items()}
    name, told = "cgroups", {**facts.cgroups, **asked}
    old = sorted(node for node, version in told.items() if version < 2)
    if not told:
        remedy = "run ambit check --local on a node, or as somebody who may read metrics of kubelets (nodes/proxy)"
        return Check(name, Status.WARNING, "no kubelet tells which version it works with", remedy)
    if old:
        remedy = (
            "Ambit needs cgroup v2, which may be beside it: see that /sys/fs/cgroup/unified is there, or boot these "
            "nodes with systemd.unified_cgroup_hierarchy=1"
        )
        return Check(name, Status.WARNING, f"v1 on {_some(old)}", remedy)
    return Check(name, Status.OK, f"v2 on {len(told)} nodes")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def is_ready(node: Object) -> bool:
    conditions = node["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def pod_security(facts: Facts) -> Check:
    name, level = "pod security", (facts.labels or {}).get(ENFORCE, "")
    if level in ("", PRIVILEGED):
        return Check(name, Status.OK, f"namespace {facts.namespace} allows what the nodes' pods need")
    remedy = f"kubectl label namespace {facts.namespace} {ENFORCE}={PRIVILEGED} --overwrite"
    return Check(name, Status.FAILED, f"namespace {facts.namespace} enforces {level!r}", f"allow it: {remedy}")


def other_meshes(facts: Facts) -> Iterator[Check]:
    found = [(mesh, places(mesh, facts)) for mesh in MESHES]
    present = [(mesh, where) for mesh, where in found if where]
    for mesh, where in present:
        yield Check("another mesh", mesh.status, f"{mesh.name} ({', '.join(where)})", mesh.remedy)
    if not present:
        yield Check("another mesh", Status.OK, "none")


def places(mesh: OtherMesh, facts: Facts) -> list[str]:
    names = (each["metadata"] for each in facts.workloads if each["metadata"]["namespace"] != facts.namespace)
    return sorted(f"{each['namespace']}/{each['name']}" for each in names if each["name"] in mesh.workloads)


def gateway_api(resources: Iterable[str]) -> Check:
    missing = sorted({"gateways", "httproutes", "gatewayclasses"} - set(resources))
    if not missing:
        return Check("Gateway API", Status.OK, "installed")
    remedy = (
        "needed for waypoints and routes only: kubectl apply --server-side -f https://github.com/kubernetes-sigs/"
        "gateway-api/releases/latest/download/standard-install.yaml"
    )
    return Check("Gateway API", Status.WARNING, f"no {', '.join(missing)}", remedy)


def numbers(version: str) -> tuple[int, ...]:
    """(1, 34) of "v1.34.4+k3s1"; (0,) of what is no version."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0,)
