"""Our plugin in a list and out of it, as values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cni.conflist import (
    PLUGIN_TYPE,
    ConfigError,
    Settings,
    active,
    as_conflist,
    derived_name,
    has_plugin,
    parse,
    with_plugin,
    without_plugin,
    write,
)

SETTINGS = Settings()
OURS = SETTINGS.as_plugin()
OLDER = {"type": PLUGIN_TYPE, "agentSocket": "/old"}
BRIDGE, PORTMAP = (
    {"type": "bridge", "x": {"y": [1.5, None]}},
    {"type": "portmap", "capabilities": {"portMappings": True}},
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)
members = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name not in ("plugins", "cniVersion", "type")), values, max_size=3
)
plugins = st.builds(
    lambda kind, more: {"type": kind, **more}, st.sampled_from(["bridge", "portmap", "tuning"]), members
)
conflists = st.builds(
    lambda version, inner, more: {"cniVersion": version, **more, "plugins": inner},
    st.sampled_from(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.2.0"]),
    st.lists(plugins, min_size=1, max_size=4),
    members,
)


def of(*inner: Any, version: Any = "1.0.0") -> dict[str, Any]:
    return {"cniVersion": version, "name": "cluster", "plugins": list(inner)}


@given(conflists)
def test_put_in_and_taken_out_leaves_what_was(conflist: dict[str, Any]) -> None:
    installed = with_plugin(conflist, SETTINGS)
    assert installed["plugins"] == [*conflist["plugins"], OURS]
    assert without_plugin(installed) == conflist
    assert with_plugin(installed, SETTINGS) == installed
    assert json.loads(write(installed)) == installed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([BRIDGE, OLDER], [BRIDGE, OURS]),
        ([BRIDGE, OLDER, PORTMAP], [BRIDGE, OURS, PORTMAP]),
        ([BRIDGE, OURS, PORTMAP, OLDER], [BRIDGE, OURS, PORTMAP]),
    ],
)
def test_where_it_is_already(before: list[Any], after: list[Any]) -> None:
    assert with_plugin(of(*before), SETTINGS) == of(*after)
    assert not has_plugin(without_plugin(of(*before)))


@pytest.mark.parametrize(
    ("conflist", "said"),
    [
        ({"cniVersion": "1.0.0"}, "no list of plugins"),
        (of(), "no list of plugins"),
        ({**of(), "plugins": {}}, "no list of plugins"),
        (of("bridge"), "no JSON object"),
        (of(BRIDGE, version="0.2.0"), "0.2.0"),
        (of(BRIDGE, version=None), "0.3.0"),
        (of(BRIDGE, version="new"), "'new'"),
        (of(BRIDGE, version=1), "no version"),
    ],
)
def test_lists_in_which_it_cannot_be(conflist: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_plugin(conflist, SETTINGS)


def test_a_list_of_it_alone_is_not_emptied() -> None:
    with pytest.raises(ConfigError, match="no plugin but ours"):
        without_plugin(of(OURS))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_text_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


@pytest.mark.parametrize(("version", "chained"), [("0.4.0", "0.4.0"), ("0.2.0", "0.3.1"), (None, "0.3.1")])
def test_a_single_plugin_becomes_a_list(version: str | None, chained: str) -> None:
    conf = {"cniVersion": version, "name": "cluster", "args": {"a": 1}, **BRIDGE}
    assert as_conflist(conf) == {"cniVersion": chained, "name": "cluster", "plugins": [{"args": {"a": 1}, **BRIDGE}]}


@pytest.mark.parametrize("conf", [{"name": "cluster"}, {"type": "bridge"}, {"type": 1, "name": "cluster"}])
def test_a_single_plugin_without_type_or_name(conf: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        as_conflist(conf)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ([], None),
        (["README", "10-x.conf.bak", ".ambit-cni.abc"], None),
        (["20-y.conflist", "10-x.conf"], "10-x.conf"),
        (["10-x.conflist", "10-x.conf"], "10-x.conf"),
        (["10-x.ambit.conflist", "10-x.conf"], "10-x.conf"),
        (["10-x.ambit.conflist"], None),
        (["b.json", "a.json"], "a.json"),
    ],
)
def test_the_file_that_runtimes_take(names: list[str], first: str | None) -> None:
    assert active(names) == first


@given(st.text(st.characters(codec="ascii", exclude_characters="/\0"), max_size=8), st.sampled_from([".conf", ".json"]))
def test_what_is_made_of_a_file_sorts_before_it(stem: str, extension: str) -> None:
    assert derived_name(stem + extension) < stem + extension
