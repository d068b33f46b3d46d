"""`ambit ztunnel-config`: what the ztunnels know and do, in istioctl's columns, from every node at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from cli.home import ask, chosen_nodes, home
from cli.output import Format, document, table

app = typer.Typer(
    no_args_is_help=True, help="What each ztunnel knows: workloads, services, policies, certificates, connections."
)

Node = Annotated[str, typer.Option("--node", help="Ask only this node's ztunnel.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]
InNamespace = Annotated[str, typer.Option("--namespace", "-n", help="Only what belongs to this namespace.")]

Entry = Mapping[str, Any]
Entries = dict[str, list[Entry]]
Row = tuple[Any, ...]


def _dumps(path: str, node: str) -> dict[str, Any]:
    place = home()
    return {each: ask(place, each, path) for each in chosen_nodes(place, node)}


def _show(entries: Entries, output: Format, columns: Sequence[str], row: Callable[[Entry], Row]) -> None:
    """Tables say the same thing once, whichever ztunnel said it; documents keep what each node said."""
    if output in (Format.JSON, Format.YAML):
        document(entries, output)
        return
    rows = {row(entry) for listed in entries.values() for entry in listed}
    table(columns, sorted(rows, key=lambda cells: tuple(map(str, cells))))


def _part(dumps: Mapping[str, Any], name: str, namespace: str) -> Entries:
    return {node: list(_within(dump.get(name, []), namespace)) for node, dump in dumps.items()}


def _within(entries: Iterable[Entry], namespace: str) -> Iterable[Entry]:
    return (entry for entry in entries if not namespace or entry.get("namespace") == namespace)


def _waypoint(entry: Entry) -> str:
    waypoint = entry.get("waypoint")
    return str(waypoint.get("destination", "")) if isinstance(waypoint, Mapping) else str(waypoint or "None")


@app.command()
def workload(node: Node = "", namespace: InNamespace = "", output: Output = Format.TABLE) -> None:
    """Workloads: where they are, and whether they are reached by HBONE or plain TCP."""
    _show(
        _part(_dumps("/config_dump", node), "workloads", namespace),
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
def service(node: Node = "", namespace: InNamespace = "", output: Output = Format.TABLE) -> None:
    """Services: their addresses and how many of their endpoints are healthy."""
    _show(
        _part(_dumps("/config_dump", node), "services", namespace),
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
def policy(node: Node = "", namespace: InNamespace = "", output: Output = Format.TABLE) -> None:
    """Authorization policies that ztunnel enforces."""
    _show(
        _part(_dumps("/config_dump", node), "policies", namespace),
        output,
        ("NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"),
        lambda entry: (entry["namespace"], entry["name"], entry["action"], entry["scope"]),
    )


@app.command()
def certificate(node: Node = "", output: Output = Format.TABLE) -> None:
    """Certificates: one per service account that runs on the node."""
    dumps = _dumps("/config_dump", node)
    entries: Entries = {
        name: [{"node": name, **entry} for entry in dump.get("certificates", [])] for name, dump in dumps.items()
    }
    _show(
        entries,
        output,
        ("NODE", "CERTIFICATE NAME", "STATUS", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
        lambda entry: (entry["node"], entry["identity"], entry["state"], *_validity(entry)),
    )


def _validity(entry: Entry) -> Row:
    leaf: Entry = next(iter(entry.get("certChain", [])), {})
    return leaf.get("serialNumber", ""), leaf.get("expirationTime", ""), leaf.get("validFrom", "")


@app.command()
def connections(node: Node = "", output: Output = Format.TABLE) -> None:
    """Connections that stand now, with the identities that both sides proved."""
    dumps = _dumps("/connections", node)
    entries: Entries = {name: [{"node": name, **entry} for entry in dump] for name, dump in dumps.items()}
    _show(
        entries,
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
