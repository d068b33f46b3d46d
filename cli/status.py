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

Json = Mapping[str, Any]
UP = "Up"  # ztunnel's word for a pod that it serves (config_dump workloadState)


@dataclass
class Node:
    name: str
    ztunnel: str = "ready"
    pods: int = 0  # enrolled and served
    connections: int = 0
    synced: str = ""


@dataclass
class Report:
    """Everything that `ambit status` says."""

    parts: dict[str, Any] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
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
    return Node(name, "ready", sum(pod["state"] == UP for pod in pods), live, _synced(name, controller))


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


def _node_problems(node: str, dump: Json) -> Iterable[str]:
    for uid, pod in dump.get("workloadState", {}).items():
        if pod["state"] != UP:
            yield f"{node}: pod {uid} is enrolled and not served: {pod.get('reason') or pod['state']}"
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
    if not report.problems:
        print("Nothing is wrong.")
    for problem in report.problems:
        print(f"! {problem}")
