"""From a container of a manifest to what is to be executed: pure. Rules are those of the kubelet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import images
from deploy.local.addresses import Pair
from deploy.local.entry import CannotRun, Entry
from deploy.local.node import fields

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod's containers share: its sandbox, as its node made it."""

    node: str
    node_address: Pair
    addresses: Pair
    hostname: str
    netns: Path
    cgroup: Path
    binds: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]
    volumes: Mapping[str, Path]


def entry(pod: Mapping[str, Any], container: Mapping[str, Any], around: Surroundings) -> Entry:
    """Raises CannotRun."""
    environment = _environment(pod, container, around)
    user, group = _user(pod, container)
    mounts = [_mount(container, mount, around.volumes) for mount in container.get("volumeMounts", ())]
    return Entry(
        command=_command(container, environment),
        environment=environment,
        working_directory=container.get("workingDir", "/"),
        user=user,
        group=group,
        hostname=around.hostname,
        netns=str(around.netns),
        cgroup=str(around.cgroup / container["name"]),
        binds=[*around.binds, *mounts],
        hidden=list(around.hidden),
    )


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value; `$$` is a dollar sign; a name that is not known stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else environment.get(name, match[0])

    return _REFERENCE.sub(value, text)


def _command(container: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    command = list(container.get("command") or images.built_in(container.get("image", "")) or ())
    if not command:
        raise CannotRun(
            "ImageCannotRunLocally",
            f"container {container['name']}: image {container.get('image')!r} is not built into local mode "
            f"({', '.join(images.names())} are); give the container a command that this machine has",
        )
    return [expand(part, environment) for part in [*command, *container.get("args", ())]]


def _environment(pod: Mapping[str, Any], container: Mapping[str, Any], around: Surroundings) -> dict[str, str]:
    environment = {"PATH": PATH, "HOSTNAME": around.hostname, "HOME": "/root"}
    if images.built_in(container.get("image", "")) and not container.get("command"):
        environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PYTHONUNBUFFERED": "1"}
        environment |= {"POD_NAME": pod["metadata"]["name"], "POD_NAMESPACE": pod["metadata"]["namespace"]}
        environment |= {"NODE_NAME": around.node}
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            environment[variable["name"]] = _from_field(pod, container, variable, around)
        else:
            environment[variable["name"]] = expand(str(variable.get("value", "")), environment)
    if container.get("envFrom"):
        raise CannotRun("CreateContainerConfigError", f"container {container['name']}: envFrom is not known locally")
    return environment


def _from_field(
    pod: Mapping[str, Any], container: Mapping[str, Any], variable: Mapping[str, Any], around: Surroundings
) -> str:
    path = variable["valueFrom"].get("fieldRef", {}).get("fieldPath", "")
    try:
        return fields.value(pod, path, around.node, around.node_address, around.addresses)
    except ValueError as error:
        raise CannotRun(
            "CreateContainerConfigError", f"container {container['name']}: env {variable['name']} {error}"
        ) from None


def _user(pod: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[int | None, int | None]:
    context = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    user, group = context.get("runAsUser"), context.get("runAsGroup")
    return user, group if group is not None or user is None else 0


def _mount(container: Mapping[str, Any], mount: Mapping[str, Any], volumes: Mapping[str, Path]) -> tuple[str, str]:
    source = volumes.get(mount["name"])
    if source is None:
        raise CannotRun(
            "CreateContainerConfigError",
            f"container {container['name']}: volume {mount['name']!r} is neither an emptyDir nor projected, the kinds "
            f"known locally",
        )
    if not Path(mount["mountPath"]).exists():
        raise CannotRun(
            "CreateContainerConfigError",
            f"container {container['name']}: mountPath {mount['mountPath']} must exist on this machine: "
            f"containers share its file system",
        )
    return str(source), mount["mountPath"]
