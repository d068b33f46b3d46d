"""`ambit waypoint generate | apply | list | status | delete`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.choice import with_home
from cli.errors import WRONG, fail, warn
from cli.home import Home
from cli.local import progress
from cli.output import Format, document, table
from cli.waypoint import manifest, view, work
from controller.compile.binding import USE_WAYPOINT
from controller.compile.gateways import Traffic
from controller.store import kinds
from controller.store.interface import Key, Object

app = typer.Typer(no_args_is_help=True, help="Waypoints: proxies for HTTP, of a service account or shared.")

Name = Annotated[str, typer.Option("--name", help="Its name; default: waypoint, or SA-waypoint.")]
Account = Annotated[str, typer.Option("--service-account", help="Bind it to the pods of this service account.")]
For = Annotated[Traffic | None, typer.Option("--for", help="What a shared one takes; default: service.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The namespace of the waypoint.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]
Timeout = Annotated[float, typer.Option("--waypoint-timeout", min=0, help="Seconds to wait for it at most.")]

PATIENCE = 90.0  # seconds; istioctl's


@app.command()
def generate(
    name: Name = "",
    service_account: Account = "",
    for_: For = None,
    namespace: Namespace = "default",
    output: Output = Format.YAML,
) -> None:
    """Print the Gateway that `apply` would make."""
    form = Format.JSON if output is Format.JSON else Format.YAML
    document(manifest.gateway(namespace, name, service_account, for_), form)


@app.command()
@with_home
def apply(
    home: Home,
    name: Name = "",
    service_account: Account = "",
    for_: For = None,
    namespace: Namespace = "default",
    enroll_namespace: Annotated[bool, typer.Option(help="Label the namespace to use it.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Allow changing the waypoint that the namespace uses.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it serves.")] = False,
    waypoint_timeout: Timeout = PATIENCE,
) -> None:
    """Make a waypoint, or change it."""
    gateway = manifest.gateway(namespace, name, service_account, for_)
    if enroll_namespace and service_account:
        fail("a waypoint of a service account is bound to its pods: --enroll-namespace does not go with it")
    key = kinds.key_of(gateway)
    asyncio.run(work.apply(home.store(), gateway, enroll_namespace, overwrite))
    print(f"waypoint {key.namespace}/{key.name} applied")
    if enroll_namespace:
        print(f"namespace {key.namespace} labelled {USE_WAYPOINT}={key.name}")
    if wait and not all(each.programmed for each in _wait(home, [key], waypoint_timeout)):
        raise typer.Exit(WRONG)


@app.command("list")
@with_home
def list_(
    home: Home, namespace: Namespace = "default", all_namespaces: AllNamespaces = False, output: Output = Format.TABLE
) -> None:
    """Show waypoints, what they take and for whom they are."""
    scope = "" if all_namespaces else namespace
    found, classes = asyncio.run(work.read(home.store(), scope))
    if output in (Format.JSON, Format.YAML):
        document({"apiVersion": "v1", "kind": "List", "items": list(found)}, output)
    elif not found:
        print(f"No waypoints found{f' in namespace {scope}' if scope else ''}.", file=sys.stderr)
    else:
        columns = ("NAMESPACE", *view.LIST_COLUMNS) if all_namespaces else view.LIST_COLUMNS
        table(columns, [view.row(view.shown(each, classes), all_namespaces) for each in found])


@app.command()
@with_home
def status(
    home: Home,
    name: Annotated[str, typer.Argument(help="Only this waypoint.")] = "",
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    wait: Annotated[bool, typer.Option(help="Wait until all are programmed.")] = True,
    waypoint_timeout: Timeout = PATIENCE,
    output: Output = Format.TABLE,
) -> None:
    """Show whether waypoints serve, and why not; exit status 1 if one does not."""
    found = _named(home, [name] if name else [], "" if all_namespaces else namespace)
    conditions = _wait(home, found, waypoint_timeout if wait else 0.0, tell=False)
    if output in (Format.JSON, Format.YAML):
        document([asdict(each) for each in conditions], output)
    else:
        table(view.STATUS_COLUMNS, [each.row() for each in conditions])
    if not all(each.programmed for each in conditions):
        raise typer.Exit(WRONG)


@app.command()
@with_home
def delete(
    home: Home,
    names: Annotated[list[str] | None, typer.Argument(help="Which waypoints.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All waypoints of the namespace.")] = False,
    namespace: Namespace = "default",
    remove_labels: Annotated[
        bool | None, typer.Option(help="Take away the labels that name them; a terminal is asked.")
    ] = None,
) -> None:
    """Delete waypoints, and if wanted the labels that point to them."""
    if bool(names) == all_:
        fail("give the names of waypoints, or --all")
    keys = _named(home, names or [], namespace)
    users = asyncio.run(work.users(home.store(), keys))
    if _labels_go(users, remove_labels):
        asyncio.run(work.remove_labels(home.store(), users))
        for user in users:
            print(f"label {USE_WAYPOINT} removed from {user}")
    elif users:
        named = ", ".join(map(str, users))
        warn(f"{USE_WAYPOINT} of {named} still names it, so connections there are refused; --remove-labels ends that")
    asyncio.run(work.delete(home.store(), keys))
    for key in keys:
        print(f"waypoint {key.namespace}/{key.name} deleted")


def _labels_go(users: Any, wanted: bool | None) -> bool:
    if not users or wanted is not None:
        return bool(users) and bool(wanted)
    if not sys.stdin.isatty():
        return False
    return typer.confirm(f"{USE_WAYPOINT} of {', '.join(map(str, users))} names it: remove these labels as well?")


def _named(home: Home, names: list[str], namespace: str) -> list[Key]:
    """The waypoints of these names, or all. Raises CommandFailed: there is none."""
    found = {kinds.key_of(each): each for each in _waypoints(home, namespace)}
    missing = [name for name in names if Key("Gateway", namespace, name) not in found]
    if missing:
        fail(f"there is no waypoint {', '.join(missing)} in namespace {namespace}")
    if not found:
        fail(f"there are no waypoints{f' in namespace {namespace}' if namespace else ''}")
    return [key for key in found if not names or key.name in names]


def _waypoints(home: Home, namespace: str) -> list[Object]:
    found, _ = asyncio.run(work.read(home.store(), namespace))
    return list(found)


def _wait(home: Home, keys: list[Key], timeout: float, tell: bool = True) -> list[view.Condition]:
    """Says what is wrong with those that are not programmed in time, unless the caller shows it."""
    with progress.waiting() as telling:
        found = list(asyncio.run(work.until_programmed(home.store(), keys, timeout, telling)))
    for each in found if tell else ():
        if not each.programmed:
            why = f"{each.reason}: {each.message}" if each.message else each.reason
            warn(f"waypoint {each.namespace}/{each.name} does not serve after {timeout:.0f} s ({why})")
    return found
