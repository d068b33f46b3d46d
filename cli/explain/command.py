"""`ambit explain SRC DST[:PORT]`: exit status 0 when it is allowed, 1 when it is denied, 2 when nobody can tell."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cli.choice import with_home
from cli.errors import fail, told_in_one_sentence
from cli.explain import names, words
from cli.explain.answer import Asked, Explanation, Request, Step, Verdict, Way
from cli.explain.live import LiveViews
from cli.explain.walk import walk
from cli.home import Home, NoAnswer
from cli.output import Format, document
from controller.store import kinds
from controller.store.interface import Object

EXIT = {Verdict.ALLOWED: 0, Verdict.DENIED: 1, Verdict.UNKNOWN: 2}


def _told_or_unknown(command: Callable[..., None]) -> Callable[..., None]:
    """A failure says nothing about whether anything is denied."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        with told_in_one_sentence(EXIT[Verdict.UNKNOWN]):
            command(*args, **given)

    return run


@_told_or_unknown
@with_home
def explain(
    home: Home,
    source: Annotated[str, typer.Argument(metavar="SRC", help="POD, NAMESPACE/POD or deploy/NAME.")],
    destination: Annotated[
        str, typer.Argument(metavar="DST[:PORT]", help="A Service, name, pod or address, as SRC would dial it.")
    ],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The namespace of SRC.")] = "default",
    method: Annotated[str, typer.Option(help="The request's method; default: GET.")] = "",
    path: Annotated[str, typer.Option(help="The request's path, with its query; default: /.")] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", help="NAME=VALUE of the request; may be repeated.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE,
) -> None:
    """What becomes of a connection or request, and why; exit status 0: allowed, 1: denied, 2: cannot tell."""
    word, port = names.split_port(destination)
    request = _request(method, path, header or [])
    pod = _pod(home, source, namespace)
    found = _explained(home, pod, word, port, request)
    if output in (Format.JSON, Format.YAML):
        document(words.as_document(found), output)
    else:
        print("\n".join(words.sentences(found)))
    raise typer.Exit(EXIT[found.verdict])


def _explained(home: Home, pod: Object, word: str, port: int, request: Request) -> Explanation:
    """What cannot be asked is an explanation as well: nobody can tell."""
    views, name = LiveViews(home), f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    try:
        view = views.node(pod["spec"].get("nodeName", ""))
        source = names.source(view.mesh, *name.split("/"))
        if source is None:
            raise NoAnswer(f"the ztunnel of {view.name} does not know pod {name}")
        return walk(views, source, word, names.destination(view.mesh, source, word, port), request)
    except NoAnswer as problem:
        way = Way((Step("path", name, str(problem)),), Verdict.UNKNOWN, str(problem))
        return Explanation(Asked(name, word, None, request), ways=(way,))


def _request(method: str, path: str, headers: list[str]) -> Request:
    fields = [each.partition("=") for each in headers]
    wrong = next((name for name, equals, _ in fields if not equals or not name), None)
    if wrong is not None:
        fail(f"--header {wrong!r} is not NAME=VALUE")
    given = tuple((name.strip().lower(), value) for name, _, value in fields)
    return Request(method or "GET", path or "/", given, assumed=not (method or path or given))


def _pod(home: Home, word: str, namespace: str) -> Object:
    """Raises StoreError, CommandFailed."""
    store = home.store()
    if word.startswith(("deploy/", "deployment/", "deployments/")):
        name = word.partition("/")[2]
        owner = asyncio.run(store.get(kinds.DEPLOYMENT, name, namespace))
        wanted = (owner["spec"]["selector"].get("matchLabels") or {}).items()
        for pod in asyncio.run(store.list(kinds.POD, namespace)):
            running = (pod.get("status") or {}).get("phase") == "Running"
            if running and wanted <= (pod["metadata"].get("labels") or {}).items():
                return pod
        fail(f"no running pod of {word} in namespace {namespace}")
    space, slash, name = word.removeprefix("pod/").rpartition("/")
    return asyncio.run(store.get(kinds.POD, name, space if slash else namespace))
