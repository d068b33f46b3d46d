"""Which mesh a command means: kubectl's options name a cluster, --local the mesh of this machine.

When nothing is named, a local mesh wins where there is one: somebody has made it here on purpose, while a kubeconfig is
simply there. When both are there, the command says which one it shows.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import fail, warn
from cli.home import Home
from cli.main import ends_at_once

SYSTEM_NAMESPACE = "ambit-system"
NO_MESH = (
    "there is no mesh to look at: no local one is running (start one with ambit local up), and there is no kubeconfig "
    "(name one with --kubeconfig or KUBECONFIG)"
)

Options = Mapping[str, tuple[Any, Any]]  # by parameter: its annotation, as Typer reads it, and its default

HOME_OPTIONS: Options = {
    "context": (Annotated[str, typer.Option(help="The kubeconfig's context to use.")], ""),
    "kubeconfig": (Annotated[Path | None, typer.Option(help="The kubeconfig to use.")], None),
    "local": (Annotated[bool, typer.Option("--local", help="The mesh of ambit local.")], False),
    "system_namespace": (Annotated[str, typer.Option(help="Where Ambit is installed.")], SYSTEM_NAMESPACE),
}


@dataclass(frozen=True, slots=True)
class Named:
    """What the options say."""

    context: str = ""
    kubeconfig: Path | None = None
    local: bool = False
    system_namespace: str = SYSTEM_NAMESPACE


def bundled(options: Options, build: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Commands whose first parameter is what `build` makes of options: they get the options in its place."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        first, *rest = own.parameters.values()

        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = build(**{name: given.pop(name) for name in options})
            command(**{first.name: made}, **given)

        rest += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in options.items()
        ]
        run.__signature__ = own.replace(parameters=rest)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in rest}
        del run.__wrapped__  # Typer would look at its annotations
        return run

    return decorate


def chosen_home(**given: Any) -> Home:
    """From the values of HOME_OPTIONS. Raises CommandFailed, LocalError."""
    return choose(Named(**given))


with_home = bundled(HOME_OPTIONS, chosen_home)


def choose(named: Named) -> Home:
    """Raises CommandFailed, LocalError."""
    on_kubernetes = bool(named.context or named.kubeconfig)
    if on_kubernetes and named.local:
        fail("--local and --context or --kubeconfig name two different meshes: give one")
    if on_kubernetes:
        return _kubernetes(named)
    if named.local:
        return _local()
    if not _kubernetes_is_configured():
        if os.geteuid() == 0 and not _local_is_there():
            fail(NO_MESH)
        return _local()
    if _local_is_there():
        warn("showing the local mesh; --context NAME shows one on Kubernetes")
        return _local()
    return _kubernetes(named)


def _kubernetes_is_configured() -> bool:
    from cli.kubernetes.configured import is_configured

    return is_configured()


def _local_is_there() -> bool:
    """Also a crashed one: to be told so is why one asks. Only root can have one."""
    from deploy.local import teardown
    from deploy.local.paths import Instance

    return os.geteuid() == 0 and teardown.is_there(Instance.current())


def _local() -> Home:
    with ends_at_once():
        from cli.local.home import LocalHome

    return LocalHome()


def _kubernetes(named: Named) -> Home:
    """Loaded only when meant: the package takes half a second."""
    with ends_at_once():
        from cli.kubernetes.access import open_access
        from cli.kubernetes.home import KubernetesHome

    return KubernetesHome(open_access(named.kubeconfig, named.context), named.system_namespace)
