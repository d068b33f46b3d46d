"""`ambit status`: what runs, what is enrolled, what is wrong. Exit status 1 when something is."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from cli.errors import WRONG
from cli.home import CONTROLLER, CONTROLLER_ADMIN, Home, ask_or_raise, home
from cli.output import Format, document, table
from controller.store import kinds
from controller.store.interface import Object
from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED, REDIRECTION_REASON, decide

Json = Mapping[str, Any]
UP = "Up"  # ztunnel's word for a pod that it serves (config_dump workloadState)


@dataclass
class Node:
    name: str
    ztunnel: str = "ready"
    pods: int = 0  # enrolled and served
    connections: int = 0
    synced: str = ""


@dataclass(frozen=True)
class Enrolled:
    """A pod that its labels want in the mesh, or that is (still) in it."""

    pod: str
    node: str
    state: str  # the annotation that the node agent writes: enabled, pending, or nothing yet
    because: str


@dataclass
class Report:
    """Everything that `ambit status` says."""

    parts: dict[str, Any] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    enrolled: list[Enrolled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def status(output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE) -> None:
    """What runs, what is enrolled, what is wrong; exit status 1 when something is wrong."""
    report = look(home())
    if output in (Format.JSON, Format.YAML):
        document(asdict(report), output)
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(WRONG)


def look(place: Home) -> Report:
    """Asks every part; a part that does not answer is a problem, never the end of the report."""
    report = Report()
    nodes = place.nodes()
    report.parts = place.processes()
    report.problems += [
        f"{name} is not running ({part['lastEnd'] or 'it has not started yet'})"
        for name, part in report.parts.items()
        if not part["pid"]
    ]
    controller = _answer(place, report, CONTROLLER, "/status", CONTROLLER_ADMIN)
    report.problems += _controller_problems(controller)
    for name in nodes:
        dump = _answer(place, report, name, "/config_dump")
        report.nodes.append(_node(name, dump, controller))
        report.problems += _node_problems(name, dump)
    report.enrolled = _enrolments(place)
    report.problems += _enrolment_problems(report.enrolled)
    return report


def _answer(place: Home, report: Report, node: str, path: str, port: int = 15000) -> Json:
    try:
        found: Json = ask_or_raise(place, node, path, port)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        who = "the controller" if node == CONTROLLER else f"ztunnel of {node}"
        report.problems.append(f"{who} does not answer: {problem}")
        return {}
    return found


def _node(name: str, dump: Json, controller: Json) -> Node:
    if not dump:
        return Node(name, ztunnel="not answering")
    pods = dump.get("workloadState", {}).values()
    live = sum(len(way) for pod in pods for way in pod.get("connections", {}).values())
    ready = "not ready" if dump.get("notReady") else "ready"
    return Node(name, ready, sum(pod["state"] == UP for pod in pods), live, _synced(name, controller))


def _synced(node: str, controller: Json) -> str:
    """Whether what the controller has published has been acknowledged by the node's ztunnel."""
    for ztunnel in controller.get("ztunnels", []):
        if ztunnel["node"] == node:
            return "no" if any(each["waiting"] for each in ztunnel["types"].values()) else "yes"
    return "not connected"


def _controller_problems(controller: Json) -> Iterable[str]:
    yield from controller.get("files", [])
    for problem in controller.get("problems", []):
        where = "/".join(filter(None, (problem["namespace"], problem["name"])))
        yield f"{problem['kind']} {where}: {problem['field']}: {problem['message']}"
    for ztunnel in controller.get("ztunnels", []):
        for name, each in ztunnel["types"].items():
            if each["rejection"]:
                yield f"ztunnel of {ztunnel['node']} rejected {name}: {each['rejection']}"


def _enrolment(pod: Object, namespace: Object) -> Enrolled | None:
    metadata, spec = pod["metadata"], pod["spec"]
    annotations = metadata.get("annotations") or {}
    labels = namespace.get("metadata", {}).get("labels") or {}
    wanted = decide(
        metadata["namespace"], labels, metadata.get("labels") or {}, annotations, bool(spec.get("hostNetwork"))
    )
    state = annotations.get(REDIRECTION, "")
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    if ended or not (wanted.wanted or state):
        return None
    name = f"{metadata['namespace']}/{metadata['name']}"
    return Enrolled(name, spec.get("nodeName", ""), state, annotations.get(REDIRECTION_REASON) or wanted.reason)


def _enrolments(place: Home) -> list[Enrolled]:
    namespaces = {each["metadata"]["name"]: each for each in place.objects(kinds.NAMESPACE)}
    found = (_enrolment(pod, namespaces.get(pod["metadata"]["namespace"], {})) for pod in place.objects(kinds.POD))
    return sorted(filter(None, found), key=lambda each: each.pod)


def _enrolment_problems(enrolled: Iterable[Enrolled]) -> Iterable[str]:
    for each in enrolled:
        if each.state != REDIRECTION_ENABLED:
            yield f"pod {each.pod} is to be in the mesh and is not yet: {each.because}"


def _node_problems(node: str, dump: Json) -> Iterable[str]:
    for reason in dump.get("notReady", {}).values():
        yield f"ztunnel of {node} is not ready: {reason}"
    for certificate in dump.get("certificates", []):
        if certificate["state"] != "Available":
            yield f"{node}: certificate of {certificate['identity']}: {certificate['state']}"


def _print(report: Report) -> None:
    table(
        ("PART", "PID", "STARTS", "LAST END"),
        ((name, part["pid"] or "not running", part["starts"], part["lastEnd"]) for name, part in report.parts.items()),
    )
    print()
    table(
        ("NODE", "ZTUNNEL", "SYNCED", "PODS ENROLLED", "CONNECTIONS"),
        ((node.name, node.ztunnel, node.synced, node.pods, node.connections) for node in report.nodes),
    )
    print()
    if report.enrolled:
        table(
            ("POD", "NODE", "MESH", "BECAUSE"),
            ((each.pod, each.node, each.state or "not yet", each.because) for each in report.enrolled),
        )
        print()
    if not report.problems:
        print("Nothing is wrong.")
    for problem in report.problems:
        print(f"! {problem}")
