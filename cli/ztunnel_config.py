"""`ambit ztunnel-config`: what the ztunnels know and do, in istioctl's columns, from every node at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.choice import HOME_OPTIONS, Options, bundled, chosen_home
from cli.errors import WRONG, warn
from cli.home import Home, NoAnswer, ask, ask_each, chosen_nodes
from cli.output import Format, document, table
from mesh.model.identity import SpiffeId

app = typer.Typer(
    no_args_is_help=True, help="What each ztunnel knows: workloads, services, policies, certificates, connections."
)

Entry = Mapping[str, Any]
Entries = dict[str, list[Entry]]
Row = tuple[Any, ...]

_OPTIONS: Options = {
    "node": (Annotated[str, typer.Option(help="Ask only this node's ztunnel.")], ""),
    "namespace": (Annotated[str, typer.Option("--namespace", "-n", help="Only what belongs to this namespace.")], ""),
    "all_namespaces": (
        Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces: so it is without -n.")],
        False,
    ),
    "output": (Annotated[Format, typer.Option("--output", "-o", help="How to print it.")], Format.TABLE),
    **HOME_OPTIONS,
}


@dataclass(frozen=True, slots=True)
class Look:
    """Where to look, and how to show what is found."""

    home: Home
    node: str
    namespace: str  # "": all
    output: Format


def _look(node: str, namespace: str, all_namespaces: bool, output: Format, **where: Any) -> Look:
    """As with kubectl, -A wins over -n."""
    return Look(chosen_home(**where), node, "" if all_namespaces else namespace, output)


_looking = bundled(_OPTIONS, _look)


@dataclass(frozen=True, slots=True)
class Dumps:
    """What each node's ztunnel said, and why others said nothing."""

    said: Mapping[str, Any]
    silent: Sequence[str]


def _dumps(look: Look, path: str) -> Dumps:
    answers = ask_each(chosen_nodes(look.home, look.node), lambda each: ask(look.home, each, path))
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


def _waypoint(entry: Entry) -> str:
    waypoint = entry.get("waypoint")
    return str(waypoint.get("destination", "")) if isinstance(waypoint, Mapping) else str(waypoint or "None")


@app.command()
@_looking
def workload(look: Look) -> None:
    """Workloads: where they are, and whether they are reached by HBONE or plain TCP."""
    dumps = _dumps(look, "/config_dump")
    _show(
        dumps,
        _part(dumps, "workloads", look.namespace),
        look.output,
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
@_looking
def service(look: Look) -> None:
    """Services: their addresses and how many of their endpoints are healthy."""
    dumps = _dumps(look, "/config_dump")
    _show(
        dumps,
        _part(dumps, "services", look.namespace),
        look.output,
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
@_looking
def policy(look: Look) -> None:
    """Authorization policies that ztunnel enforces."""
    dumps = _dumps(look, "/config_dump")
    _show(
        dumps,
        _part(dumps, "policies", look.namespace),
        look.output,
        ("NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"),
        lambda entry: (entry["namespace"], entry["name"], entry["action"], entry["scope"]),
    )


@app.command()
@_looking
def certificate(look: Look) -> None:
    """Certificates: one per service account that runs on the node."""
    dumps = _dumps(look, "/config_dump")
    entries: Entries = {
        name: [{"node": name, **entry} for entry in dump.get("certificates", [])] for name, dump in dumps.said.items()
    }
    _show(
        dumps,
        _within(entries, look.namespace, lambda entry: _namespace_of_identity(entry["identity"])),
        look.output,
        ("NODE", "CERTIFICATE NAME", "STATUS", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
        lambda entry: (entry["node"], entry["identity"], entry["state"], *_validity(entry)),
    )


def _namespace_of_identity(identity: str) -> str:
    return SpiffeId.parse(identity).namespace


def _validity(entry: Entry) -> Row:
    leaf: Entry = next(iter(entry.get("certChain", [])), {})
    return leaf.get("serialNumber", ""), leaf.get("expirationTime", ""), leaf.get("validFrom", "")


@app.command()
@_looking
def connections(look: Look) -> None:
    """Connections that stand now, with the identities that both sides proved."""
    dumps = _dumps(look, "/connections")
    entries: Entries = {name: [{"node": name, **entry} for entry in dump] for name, dump in dumps.said.items()}
    _show(
        dumps,
        _within(entries, look.namespace, lambda entry: _namespace_of_workload(entry["workload"])),
        look.output,
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
