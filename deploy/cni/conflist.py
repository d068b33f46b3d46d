"""CNI configuration as values: our plugin put into a list and taken out of it. CNI spec 1.1, section 1."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Conflist = dict[str, Any]
"""A configuration list, as decoded JSON; unknown fields are kept."""

PLUGIN_TYPE = "ambit-cni"
DERIVED = ".ambit.conflist"
"""How files end that we make of a single plugin's .conf or .json. The original stays as it is: `10-x.ambit.conflist`
sorts before `10-x.conf`, so runtimes take ours, and without ours they take the original again."""

EXTENSIONS = (".conf", ".conflist", ".json")  # what runtimes read (libcni ConfFiles, as containerd calls it)
CHAINING_SINCE = (0, 3, 0)  # prevResult and lists
SINGLE_PLUGIN_VERSION = "0.3.1"  # of a list made of an older .conf; Istio's installer takes the same


class ConfigError(Exception):
    """A configuration in which no plugin can be put. The text is a sentence without the file's name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What our plugin is told. Paths are the host's; times in seconds."""

    agent_socket: str = "/var/run/ambit/cni.sock"
    enrolled_namespaces: str = "/var/lib/ambit/node/enrolled-namespaces"
    timeout: float = 30.0
    retry: float = 2.0

    def as_plugin(self) -> dict[str, Any]:
        return {
            "type": PLUGIN_TYPE,
            "agentSocket": self.agent_socket,
            "enrolledNamespaces": self.enrolled_namespaces,
            "timeoutSeconds": self.timeout,
            "retrySeconds": self.retry,
        }


def parse(text: str) -> dict[str, Any]:
    """Raises ConfigError: no JSON, or not an object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError("it is no JSON object")
    return document


def write(conflist: Conflist) -> str:
    return json.dumps(conflist, indent=2) + "\n"


def with_plugin(conflist: Conflist, settings: Settings) -> Conflist:
    """Our plugin is the last of the list; where it is there already, it keeps its place and gets these settings.

    It is not moved to the end again when someone adds a plugin after it: two installers that both want to be last would
    never stop. Raises ConfigError.
    """
    plugins = _plugins(conflist)
    if _version(conflist) < CHAINING_SINCE:
        raise ConfigError(f"its cniVersion is {conflist.get('cniVersion', 'missing')}, and chained plugins need 0.3.0")
    ours = settings.as_plugin()
    if not has_plugin(conflist):
        return {**conflist, "plugins": [*plugins, ours]}
    first = next(index for index, plugin in enumerate(plugins) if _is_ours(plugin))
    others = [plugin for plugin in plugins[first:] if not _is_ours(plugin)]
    return {**conflist, "plugins": [*plugins[:first], ours, *others]}


def without_plugin(conflist: Conflist) -> Conflist:
    """Raises ConfigError, also when nothing would be left: runtimes take no empty list."""
    others = [plugin for plugin in _plugins(conflist) if not _is_ours(plugin)]
    if not others:
        raise ConfigError("it has no plugin but ours")
    return {**conflist, "plugins": others}


def has_plugin(conflist: Conflist) -> bool:
    """Raises ConfigError."""
    return any(map(_is_ours, _plugins(conflist)))


def as_conflist(conf: dict[str, Any]) -> Conflist:
    """A list of the one plugin of a .conf or .json file. Keeps the network's name: plugins find what they keep by it.

    Raises ConfigError.
    """
    if not isinstance(conf.get("type"), str):
        raise ConfigError("it has no type of a plugin")
    if not isinstance(conf.get("name"), str):
        raise ConfigError("it has no name")
    version = conf["cniVersion"] if _version(conf) >= CHAINING_SINCE else SINGLE_PLUGIN_VERSION
    plugin = {name: value for name, value in conf.items() if name not in ("cniVersion", "name")}
    return {"cniVersion": version, "name": conf["name"], "plugins": [plugin]}


def active(names: Iterable[str]) -> str | None:
    """Of the files of a configuration directory, the one that runtimes take, ours not counted."""
    return min((name for name in names if name.endswith(EXTENSIONS) and not name.endswith(DERIVED)), default=None)


def derived_name(name: str) -> str:
    """`10-x.conf` and `10-x.json`: `10-x.ambit.conflist`."""
    return name.rpartition(".")[0] + DERIVED


def _plugins(conflist: Conflist) -> list[dict[str, Any]]:
    plugins = conflist.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise ConfigError("it has no list of plugins")
    if not all(isinstance(plugin, dict) for plugin in plugins):
        raise ConfigError("one of its plugins is no JSON object")
    return plugins


def _is_ours(plugin: dict[str, Any]) -> bool:
    return plugin.get("type") == PLUGIN_TYPE


def _version(document: dict[str, Any]) -> tuple[int, ...]:
    """(0, 1, 0) when there is none, as the specification has it. Raises ConfigError."""
    version = document.get("cniVersion") or "0.1.0"
    try:
        return tuple(int(part) for part in version.split("."))
    except (AttributeError, ValueError):
        raise ConfigError(f"its cniVersion {version!r} is no version") from None
