"""`ambit status`: what runs, what is enrolled, what is wrong. Exit status 1 when something is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from cli.choice import with_home
from cli.errors import WRONG
from cli.home import CONTROLLER_ADMIN, Home, NoAnswer, Part, ask, ask_each, chosen_nodes
from cli.output import Format, document, table
from controller.store import kinds
from controller.store.interface import Object
from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED, REDIRECTION_REASON, decide

Json = Mapping[str, Any]
_CONTROLLER_LISTS = ("files", "problems", "ztunnels")  # of its /status, that are read here
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

    parts: Mapping[str, Part] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    enrolled: list[Enrolled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@with_home
def status(
    home: Home,
    node: Annotated[str, typer.Option("--node", help="Look only at this node.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only pods of this namespace.")] = "",
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="All pods: so it is without -n.")
    ] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE,
) -> None:
    """What runs, what is enrolled, what is wrong; exit status 1 if something is."""
    report = look(home, node, "" if all_namespaces else namespace)
    if output in (Format.JSON, Format.YAML):
        document(asdict(report) | {"parts": {name: part.document() for name, part in report.parts.items()}}, output)
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(WRONG)


def look(home: Home, node: str = "", namespace: str = "") -> Report:
    """Asks every part; a part that does not answer is a problem, never the end of the report."""
    nodes = chosen_nodes(home, node)
    parts = home.parts()
    problems = [*home.problems(), *_part_problems(parts)]
    controller = _controller(home, problems)
    dumps = ask_each(nodes, lambda name: ask(home, name, "/config_dump"))
    for name, dump in dumps.items():
        problems += [str(dump)] if isinstance(dump, NoAnswer) else _node_problems(name, dump)
    for name, kernel in ask_each(nodes, home.kernel).items():
        problems += [] if isinstance(kernel, NoAnswer) else _capture_problems(name, kernel)
    enrolled = [each for each in _enrolments(home, namespace, problems) if node in ("", each.node)]
    return Report(
        parts,
        [_node(name, dump, controller) for name, dump in dumps.items()],
        enrolled,
        list(dict.fromkeys([*problems, *_enrolment_problems(enrolled)])),
    )


def _part_problems(parts: Mapping[str, Part]) -> Iterable[str]:
    """Containers of one pod that wait for the same thing are one problem."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, part in parts.items():
        if not part.running:
            why = ", ".join(filter(None, (part.state.removeprefix("not running"), part.last_end)))
            pod, _, container = name.rpartition("/")
            alike.setdefault((pod, why), []).append(container)
    for (pod, why), containers in alike.items():
        name = f"{pod}/{','.join(containers)}" if pod else ", ".join(containers)
        yield f"{name} {'is' if len(containers) == 1 else 'are'} not running{f' ({why})' if why else ''}"


def _controller(home: Home, problems: list[str]) -> Json:
    """What all replicas say, as one: each has the ztunnels that are connected to it, and each compiles all objects."""
    answers = ask_each(home.controllers(), lambda name: ask(home, name, "/status", CONTROLLER_ADMIN))
    said = [each for each in answers.values() if not isinstance(each, NoAnswer)]
    problems += [str(each) for each in answers.values() if isinstance(each, NoAnswer)]
    problems += ["no controller is running"] if not answers else []
    whole = {name: [entry for each in said for entry in each.get(name, [])] for name in _CONTROLLER_LISTS}
    problems += _controller_problems(whole)
    return whole


def _node(name: str, dump: Json | NoAnswer, controller: Json) -> Node:
    if isinstance(dump, NoAnswer):
        return Node(name, "not answering", synced=_synced(name, controller))
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


def _enrolments(home: Home, namespace: str, problems: list[str]) -> Sequence[Enrolled]:
    try:
        spaces = {each["metadata"]["name"]: each for each in home.objects(kinds.NAMESPACE)}
        pods = home.objects(kinds.POD, namespace)
    except NoAnswer as problem:
        problems.append(str(problem))
        return ()
    found = (_enrolment(pod, spaces.get(pod["metadata"]["namespace"], {})) for pod in pods)
    return sorted(filter(None, found), key=lambda each: each.pod)


def _enrolment_problems(enrolled: Iterable[Enrolled]) -> Iterable[str]:
    for each in enrolled:
        if each.state != REDIRECTION_ENABLED:
            yield f"pod {each.pod} is to be in the mesh and is not yet: {each.because}"


def _capture_problems(node: str, kernel: Json) -> Iterable[str]:
    """Whose connections are steered in, theirs are captured out: but for a moment, while a pod joins or leaves."""
    if idle := kernel.get("idleHooks"):
        yield f"{node} captures nothing: no program is attached at {', '.join(idle)}; delete its pod ambit-node"
    steered = len(kernel["inbound"])
    if (lost := steered - kernel["enrolled"]) > 0:
        yield f"{node}: of {steered} pods in the mesh {lost} are not captured: what they dial goes out in clear"


def _node_problems(node: str, dump: Json) -> Iterable[str]:
    for reason in dump.get("notReady", {}).values():
        yield f"ztunnel of {node} is not ready: {reason}"
    for certificate in dump.get("certificates", []):
        if certificate["state"] != "Available":
            yield f"{node}: certificate of {certificate['identity']}: {certificate['state']}"


def _print(report: Report) -> None:
    table(
        ("PART", "STATE", "WHERE", "STARTS", "LAST END"),
        ((name, part.state, part.where, part.starts, part.last_end) for name, part in report.parts.items()),
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
