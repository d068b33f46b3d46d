"""`ambit local`: up, down, apply, get, label, delete, exec, logs. kubectl's words, the same meaning."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cli.local import edit, progress, resources
from cli.output import Format, document, table
from controller.store.directory import DirectoryStore
from controller.store.interface import Key, Kind, Object
from deploy.local import api

app = typer.Typer(
    no_args_is_help=True, help="A whole mesh on this machine: namespaces as nodes and pods, no Kubernetes."
)

T = TypeVar("T")
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The namespace to look in.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def store() -> DirectoryStore:
    """The objects of the running mesh; one sentence when there is none."""
    api.require_running()
    return api.open_store()


@app.command()
def up(nodes: Annotated[int, typer.Option(min=1, max=20, help="How many nodes the mesh has.")] = 2) -> None:
    """Start a mesh: nodes, controller, one ztunnel per node. It runs on after this command."""
    with progress.steps() as step:
        api.up(nodes, step)
    print(f"A mesh of {nodes} nodes is up. Try: ambit local apply -f examples/shop && ambit status")


@app.command()
def down() -> None:
    """End the mesh and remove everything it made. Safe to repeat."""
    with progress.steps() as step:
        api.down(step)


@app.command()
def apply(
    filename: Annotated[
        list[str], typer.Option("--filename", "-f", help="A file, a directory, or - for standard input.")
    ],
    namespace: Namespace = "default",
    wait: Annotated[bool, typer.Option(help="Wait until the pods that were applied are ready.")] = False,
) -> None:
    """Create or change objects from manifests. All are checked before the first is written."""
    objects = edit.read_manifests(filename, namespace)
    for verb, key in run(edit.apply(store(), objects)):
        print(f"{edit.spoken(key)} {verb}")
    if wait:
        run(edit.wait_ready(store(), objects))


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="pods, services, namespaces, ... or KIND/NAME")],
    name: Annotated[str, typer.Argument()] = "",
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Show objects."""
    chosen, name = edit.resource(kind, name)
    scope = "" if all_namespaces or not chosen.namespaced else namespace
    objects = run(_read(store(), chosen, scope, name))
    if output in (Format.JSON, Format.YAML):
        listed: Any = objects[0] if name else {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        document(listed, output)
    elif not objects:
        print(f"No resources found{f' in namespace {scope}' if scope else ''}.", file=sys.stderr)
    else:
        table(*resources.rows(chosen.kind, all_namespaces and chosen.namespaced, objects))


async def _read(objects: DirectoryStore, kind: Kind, namespace: str, name: str) -> tuple[Object, ...]:
    if name:
        return (await objects.get(kind, name, namespace),)
    return tuple(sorted(await objects.list(kind, namespace), key=_order))


def _order(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


@app.command(context_settings={"ignore_unknown_options": True})
def label(
    kind: Annotated[str, typer.Argument(help="KIND or KIND/NAME")],
    words: Annotated[list[str], typer.Argument(help="[NAME] KEY=VALUE ... KEY- ...")],
    namespace: Namespace = "default",
    overwrite: Annotated[bool, typer.Option(help="Allow changing a label that has another value.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until every pod is where its labels want it.")] = True,
) -> None:
    """Set (KEY=VALUE) or remove (KEY-) labels, as kubectl label does."""
    chosen, name, changes = edit.parse_label(kind, words)
    key = Key(chosen.kind, namespace if chosen.namespaced else "", name)
    run(edit.label(store(), key, changes, overwrite))
    print(f"{edit.spoken(key)} {'unlabeled' if all(value is None for value in changes.values()) else 'labeled'}")
    if wait and edit.concerns_enrolment(chosen, changes):
        with progress.waiting() as tell:
            run(edit.wait_enrolled(store(), key, tell))


@app.command()
def delete(
    kind: Annotated[str, typer.Argument(help="KIND or KIND/NAME")] = "",
    names: Annotated[list[str] | None, typer.Argument()] = None,
    namespace: Namespace = "default",
    filename: Annotated[list[str] | None, typer.Option("--filename", "-f")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is gone.")] = True,
) -> None:
    """Delete objects by name or by manifest."""
    keys = edit.keys_to_delete(kind, names or [], namespace, filename or [])
    run(edit.delete(store(), keys, wait))


@app.command("exec")
def execute(
    pod: Annotated[str, typer.Argument(help="POD, or deploy/NAME for its first pod")],
    command: Annotated[list[str], typer.Argument(help="-- COMMAND ARGUMENT ...")],
    namespace: Namespace = "default",
) -> None:
    """Run a command in a pod: in its network, files and cgroup, so that its connections are the pod's."""
    raise typer.Exit(api.exec_in_pod(namespace, run(edit.pod_name(store(), pod, namespace)), command))


@app.command()
def logs(
    pod: Annotated[str, typer.Argument(help="POD, or deploy/NAME for its first pod")],
    namespace: Namespace = "default",
    container: Annotated[str, typer.Option("--container", "-c", help="Which container, when there are several.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
) -> None:
    """Print what a pod's container has written."""
    name = run(edit.pod_name(store(), pod, namespace))
    for piece in api.read_logs(namespace, name, container, follow):
        sys.stdout.write(piece)
        sys.stdout.flush()


@app.command()
def path() -> None:
    """Print the directory that holds the objects: plain files, made to be read and edited."""
    print(Path(api.objects_dir()))
