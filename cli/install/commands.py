"""The commands: what is checked first, what helm is asked for, and how the end is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.choice import SYSTEM_NAMESPACE
from cli.errors import WRONG, CommandFailed, fail
from cli.install import helm as helms
from cli.install.cluster import Cluster
from cli.install.helm import RELEASE, Helm
from cli.install.progress import doing, wait
from cli.install.readiness import reasons
from cli.install.verdict import Check, Status, judge
from cli.output import Format, document, stderr, table

HOOK_APP = "ambit-uninstall-hook"  # label of the pod that takes the nodes out of the mesh

Context = Annotated[str, typer.Option(help="The kubeconfig's context to use.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="The kubeconfig to use.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where Ambit is, or will be.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A value of the chart: NAME=VALUE; repeatable.")]
Values = Annotated[list[Path] | None, typer.Option("--values", "-f", help="A file of values; repeatable.")]
HelmOption = Annotated[Path | None, typer.Option("--helm", help="The helm to use, if it is not in PATH.")]
Chart = Annotated[Path | None, typer.Option(help="The chart to install, if not the one that came along.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for it to be ready.")]
SkipChecks = Annotated[bool, typer.Option("--skip-checks", help="Install whatever the checks say.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]


def install(
    set_: Set = None,
    values: Values = None,
    namespace: Namespace = SYSTEM_NAMESPACE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    helm: HelmOption = None,
    chart: Chart = None,
    timeout: Timeout = 300.0,
    skip_checks: SkipChecks = False,
) -> None:
    """Installs Ambit on a cluster, and waits until it is ready."""
    source, runner = helms.chart(chart), Helm.find(helm, kubeconfig, context, namespace)
    cluster = Cluster.open(kubeconfig, context, namespace)
    if runner.is_installed():
        fail(f"Ambit is installed in namespace {namespace}: change it with ambit upgrade")
    if not skip_checks:
        require(cluster)
    cluster.make_namespace()
    with doing("helm installs the chart"):
        runner.run("install", RELEASE, str(source), *chosen(set_, values))
    wait(cluster, timeout)
    stderr.print("Ambit is installed. Enrol a namespace: kubectl label namespace NAME istio.io/dataplane-mode=ambient")


def upgrade(
    set_: Set = None,
    values: Values = None,
    namespace: Namespace = SYSTEM_NAMESPACE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    helm: HelmOption = None,
    chart: Chart = None,
    timeout: Timeout = 600.0,
) -> None:
    """Changes an installation, node after node; values that are not named stay as they are."""
    source, runner = helms.chart(chart), Helm.find(helm, kubeconfig, context, namespace)
    cluster = Cluster.open(kubeconfig, context, namespace)
    require_installed(runner, namespace)
    with doing("helm upgrades the release"):
        # Defaults of a newer chart count, except where the user has said otherwise before.
        runner.run("upgrade", RELEASE, str(source), "--reset-then-reuse-values", *chosen(set_, values))
    wait(cluster, timeout)


def uninstall(
    namespace: Namespace = SYSTEM_NAMESPACE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
    helm: HelmOption = None,
    timeout: Timeout = 300.0,
    no_hooks: Annotated[bool, typer.Option("--no-hooks", help="Leave the nodes as they are: they have gone.")] = False,
) -> None:
    """Takes the whole cluster out of the mesh, and removes Ambit. No pod is restarted."""
    runner = Helm.find(helm, kubeconfig, context, namespace)
    cluster = Cluster.open(kubeconfig, context, namespace)
    require_installed(runner, namespace)
    hooks = ["--no-hooks"] if no_hooks else []
    with doing("helm removes the release" if no_hooks else "every node lets its pods go"):
        try:
            runner.run("uninstall", RELEASE, "--wait", "--timeout", f"{timeout:.0f}s", *hooks)
        except CommandFailed as problem:
            fail(f"{cluster.last_words(HOOK_APP) or unstarted(cluster) or problem}; Ambit is still installed")
    if no_hooks:
        cluster.drop_hook()
        stderr.print(
            "Ambit is removed from the API server; whatever it has left on nodes is still there.", soft_wrap=True
        )
    else:
        stderr.print("Ambit is removed: the pods talk in plain text again, and none was restarted.")


def unstarted(cluster: Cluster) -> str:
    """Why what cleans up does not run; "" when it does."""
    why = reasons(pod for pod in cluster.pods() if pod["metadata"].get("labels", {}).get("app") == HOOK_APP)
    return f"{'; '.join(why)} (where Ambit has never run, there is nothing to clean up: --no-hooks)" if why else ""


def check(
    output: Output = Format.TABLE,
    local: Annotated[bool, typer.Option("--local", help="This machine's kernel, and no cluster.")] = False,
    namespace: Namespace = SYSTEM_NAMESPACE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Whether Ambit can work here, and what to do where it cannot; exit status 1 if something is missing.

    Where Ambit is installed, its agents ask the kernel of every node; else nodes are judged by their versions.
    """
    found = of_this_machine() if local else judge(Cluster.open(kubeconfig, context, namespace).facts())
    if output in (Format.JSON, Format.YAML):
        document([{"name": c.name, "status": c.status, "found": c.found, "remedy": c.remedy} for c in found], output)
    else:
        table(("CHECK", "STATUS", "FOUND"), ((each.name, each.status, each.found) for each in found))
        for each in found:
            if each.remedy:
                print(f"\n{each.name} ({each.found}): {each.remedy}")
    if any(each.status is Status.FAILED for each in found):
        raise typer.Exit(WRONG)


def of_this_machine() -> list[Check]:
    from ebpf import features

    return [
        Check(each.name, Status.OK if each.present else Status.FAILED, "" if each.present else "missing", remedy)
        for each in features.inspect()
        for remedy in ["" if each.present else each.remedy]
    ]


def require(cluster: Cluster) -> None:
    """Raises CommandFailed when a check fails; warnings are told and pass."""
    with doing("checking the cluster"):
        found = judge(cluster.facts())
    for each in found:
        if each.status is Status.WARNING:
            stderr.print(f"warning: {each.name}: {each.found}: {each.remedy}", highlight=False, soft_wrap=True)
    failed = [f"{each.name}: {each.found}: {each.remedy}" for each in found if each.status is Status.FAILED]
    if failed:
        fail("this cluster is not ready for Ambit (--skip-checks installs all the same)\n  " + "\n  ".join(failed))


def require_installed(runner: Helm, namespace: str) -> None:
    if not runner.is_installed():
        fail(f"Ambit is not installed in namespace {namespace}: install it with ambit install, or name another with -n")


def chosen(set_: list[str] | None, values: list[Path] | None) -> list[str]:
    """As helm wants it."""
    return [
        *(word for each in values or () for word in ("--values", str(each))),
        *(word for each in set_ or () for word in ("--set", each)),
    ]
