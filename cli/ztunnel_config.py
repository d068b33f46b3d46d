"""`ambit ztunnel-config`: what the ztunnels know and do, in istioctl's columns, from every node at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.choice import with_home
from cli.errors import WRONG, warn
from cli.home import Home, NoAnswer, ask, ask_each, chosen_nodes
from cli.output import Format, document, table
from mesh.model.identity import SpiffeId

app = typer.Typer(
    no_args_is_help=True, help="What each ztunnel knows: workloads, services, policies, certificates, connections."
)

Node = Annotated[str, typer.Option("--node", help="Ask only this node's ztunnel.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]
InNamespace = Annotated[str, typer.Option("--namespace", "-n", help="Only what belongs to this namespace.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces: so it is without -n.")]

Entry = Mapping[str, Any]
Entries = dict[str, list[Entry]]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Dumps:
    """What each node's ztunnel said, and why others said nothing."""

    said: Mapping[str, Any]
    silent: Sequence[str]


def _dumps(home: Home, path: str, node: str) -> Dumps:
    answers = ask_each(chosen_nodes(home, node), lambda each: ask(home, each, path))
    said = {name: answer for name, answer in answers.items() if not isinstance(answer, NoAnswer)}
    silent = [str(answer) for answer in answers.values() if isinstance(answer, NoAnswer)]
    return Dumps(said, list(dict.fromkeys(silent)))


def _show(dumps: Dumps, entries: Entries, output: Format, columns: Sequence[str], row: Callable[[Entry], Row]) -> None:
    """Tables say the same thing once, whichever ztunnel said it; documents keep what each node said."""
    if output in (Format.JSON, Format.YAML):
        document(entries, output)
    elif entries:
        rows = {row(entry) for listed in entries.values() for entry in listed}
        table(columns, sorted(rows, key=lambda cells: tuple(map(str, cells))))
    for sentence in dumps.silent:
        warn(sentence)
    if dumps.silent:
        raise typer.Exit(WRONG)


def _part(dumps: Dumps, name: str, namespace: str) -> Entries:
    found = {node: dump.get(name, []) for node, dump in dumps.said.items()}
    return _within(found, namespace, lambda entry: str(entry.get("namespace", "")))


def _within(entries: Entries, namespace: str, namespace_of: Callable[[Entry], str]) -> Entries:
    if not namespace:
        return entries
    return {node: [each for each in listed if namespace_of(each) == namespace] for node, listed in entries.items()}


def _scope(namespace: str, all_namespaces: bool) -> str:
    """As with kubectl -A wins over -n."""
    return "" if all_namespaces else namespace


def _waypoint(entry: Entry) -> str:
    waypoint = entry.get("waypoint")
    return str(waypoint.get("destination", "")) if isinstance(waypoint, Mapping) else str(waypoint or "None")


@app.command()
@with_home
def workload(
    home: Home,
    node: Node = "",
    namespace: InNamespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Workloads: where they are, and whether they are reached by HBONE or plain TCP."""
    dumps = _dumps(home, "/config_dump", node)
    _show(
        dumps,
        _part(dumps, "workloads", _scope(namespace, all_namespaces)),
        output,
        ("NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL", "STATUS"),
        lambda entry: (
            entry["namespace"],
            entry["name"],
            ",".join(entry.get("workloadIps", [])),
            entry.get("node", ""),
            _waypoint(entry),
            entry.get("protocol", "TCP"),
            entry.get("status", "Healthy"),
        ),
    )


@app.command()
@with_home
def service(
    home: Home,
    node: Node = "",
    namespace: InNamespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Services: their addresses and how many of their endpoints are healthy."""
    dumps = _dumps(home, "/config_dump", node)
    _show(
        dumps,
        _part(dumps, "services", _scope(namespace, all_namespaces)),
        output,
        ("NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"),
        lambda entry: (
            entry["namespace"],
            entry["name"],
            ",".join(vip.partition("/")[2] for vip in entry.get("vips", [])),
            _waypoint(entry),
            _healthy(entry),
        ),
    )


def _healthy(service: Entry) -> str:
    endpoints = list(service.get("endpoints", {}).values())
    return f"{sum(each.get('status', 'Healthy') == 'Healthy' for each in endpoints)}/{len(endpoints)}"


@app.command()
@with_home
def policy(
    home: Home,
    node: Node = "",
    namespace: InNamespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Authorization policies that ztunnel enforces."""
    dumps = _dumps(home, "/config_dump", node)
    _show(
        dumps,
        _part(dumps, "policies", _scope(namespace, all_namespaces)),
        output,
        ("NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"),
        lambda entry: (entry["namespace"], entry["name"], entry["action"], entry["scope"]),
    )


@app.command()
@with_home
def certificate(
    home: Home,
    node: Node = "",
    namespace: InNamespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Certificates: one per service account that runs on the node."""
    dumps = _dumps(home, "/config_dump", node)
    entries: Entries = {
        name: [{"node": name, **entry} for entry in dump.get("certificates", [])] for name, dump in dumps.said.items()
    }
    _show(
        dumps,
        _within(entries, _scope(namespace, all_namespaces), lambda entry: _namespace_of_identity(entry["identity"])),
        output,
        ("NODE", "CERTIFICATE NAME", "STATUS", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
        lambda entry: (entry["node"], entry["identity"], entry["state"], *_validity(entry)),
    )


def _namespace_of_identity(identity: str) -> str:
    return SpiffeId.parse(identity).namespace


def _validity(entry: Entry) -> Row:
    leaf: Entry = next(iter(entry.get("certChain", [])), {})
    return leaf.get("serialNumber", ""), leaf.get("expirationTime", ""), leaf.get("validFrom", "")


@app.command()
@with_home
def connections(
    home: Home,
    node: Node = "",
    namespace: InNamespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Connections that stand now, with the identities that both sides proved."""
    dumps = _dumps(home, "/connections", node)
    entries: Entries = {name: [{"node": name, **entry} for entry in dump] for name, dump in dumps.said.items()}
    _show(
        dumps,
        _within(entries, _scope(namespace, all_namespaces), lambda entry: _namespace_of_workload(entry["workload"])),
        output,
        ("NODE", "DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "SOURCE IDENTITY", "DESTINATION IDENTITY"),
        lambda entry: (
            entry["node"],
            entry["direction"],
            entry["protocol"],
            entry["source"],
            entry["destination"],
            entry.get("sourceIdentity"),
            entry.get("destinationIdentity"),
        ),
    )


def _namespace_of_workload(uid: str) -> str:
    """Of cluster/group/kind/namespace/name (workload.proto: uid)."""
    return "".join(uid.split("/")[3:4])
