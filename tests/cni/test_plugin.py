"""The plugin as a runtime sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cni.plugin import ALLOWS, POD, RESULT, Behaviour, Plugin, agent, finish, hangs_up, says, says_nothing

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_is_one_small_static_file(binary: Path) -> None:
    assert binary.stat().st_size < 1 << 20
    headers = subprocess.run(["readelf", "--program-headers", "--dynamic", binary], capture_output=True, text=True)
    assert "INTERP" not in headers.stdout
    assert "NEEDED" not in headers.stdout


# --- commands


@pytest.mark.parametrize("version", VERSIONS)
def test_version(plugin: Plugin, version: str) -> None:
    outcome = plugin.call("VERSION", json.dumps({"cniVersion": version}))
    assert json.loads(outcome.stdout) == {"cniVersion": version, "supportedVersions": VERSIONS}


def test_version_answers_a_runtime_of_the_future(plugin: Plugin) -> None:
    said = json.loads(plugin.call("VERSION", json.dumps({"cniVersion": "2.0.0"})).stdout)
    assert said == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("version", VERSIONS)
def test_add_passes_the_result_through(plugin: Plugin, version: str) -> None:
    result = {**RESULT, "cniVersion": version}
    with agent(plugin.socket, ALLOWS):
        outcome = plugin.call("ADD", json.dumps(plugin.netconf(cniVersion=version, prevResult=result)))
    assert outcome.code == 0
    assert json.loads(outcome.stdout) == result


def test_add_keeps_the_text_of_the_result(plugin: Plugin) -> None:
    raw = '{ "cniVersion" : "1.0.0",\n "ips":[ ] , "x":1.50e+2, "x":[1,\t2], "\\u0041\\/":"\\ud83d" }'
    text = json.dumps(plugin.netconf(prevResult="@")).replace('"@"', raw)
    with agent(plugin.socket, ALLOWS):
        assert plugin.call("ADD", text).stdout == raw + "\n"


def test_add_tells_the_agent_all_it_knows(plugin: Plugin) -> None:
    with agent(plugin.socket, ALLOWS) as requests:
        plugin.call("ADD", CNI_NETNS='/var/run/netns/"é\\')
    assert requests == [
        {
            "version": 1,
            "command": "ADD",
            "podNamespace": "shop",
            "podName": "cart-0",
            "podUid": "u-1",
            "netns": '/var/run/netns/"é\\',
            "containerId": "c0ffee",
            "addresses": ["10.9.0.7", "fd00::7"],
        }
    ]


def test_add_of_a_runtime_that_gives_no_uid(plugin: Plugin) -> None:
    with agent(plugin.socket, ALLOWS) as requests:
        assert plugin.call("ADD", CNI_ARGS="K8S_POD_NAME=cart-0;K8S_POD_NAMESPACE=shop").code == 0
    assert requests[0]["podUid"] == ""


def test_add_waits_until_the_agent_answers(plugin: Plugin) -> None:
    captured = threading.Event()

    def once_captured(stream: socket.socket) -> None:
        captured.wait()
        ALLOWS(stream)

    with agent(plugin.socket, once_captured) as requests:
        pending = plugin.start("ADD")
        with pytest.raises(subprocess.TimeoutExpired):
            pending.wait(0.5)
        captured.set()
        assert json.loads(finish(pending).stdout) == RESULT
    assert len(requests) == 1


@pytest.mark.parametrize("arguments", ["", "IgnoreUnknown=1", "K8S_POD_NAMESPACE=;K8S_POD_NAME="])
def test_add_of_a_container_without_kubernetes_asks_nobody(plugin: Plugin, arguments: str) -> None:
    plugin.enrolled.mkdir()
    assert json.loads(plugin.call("ADD", CNI_ARGS=arguments).stdout) == RESULT


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_success_of_the_others_is_silent(plugin: Plugin, command: str) -> None:
    with agent(plugin.socket, ALLOWS):
        outcome = plugin.call(command)
    assert (outcome.code, outcome.stdout) == (0, "")


def test_del_tells_the_agent(plugin: Plugin) -> None:
    with agent(plugin.socket, ALLOWS) as requests:
        plugin.call("DEL", json.dumps(plugin.netconf(prevResult=None)), CNI_NETNS="")
    assert [(request["command"], request["netns"], request["addresses"]) for request in requests] == [("DEL", "", [])]


@pytest.mark.parametrize(
    "text", ["", "garbage", "[]", '{"cniVersion":"9.0.0"}', '{"cniVersion":"1.0.0","prevResult":1}']
)
def test_del_never_fails_on_what_it_is_told(plugin: Plugin, text: str) -> None:
    outcome = plugin.call("DEL", text, CNI_CONTAINERID="", CNI_ARGS="=;;=")
    assert (outcome.code, outcome.stdout) == (0, "")


@pytest.mark.parametrize("behaviour", [says({"ok": False, "reason": "no"}), says(b"\xff"), hangs_up, says_nothing])
def test_del_never_fails_on_the_agent(plugin: Plugin, behaviour: Behaviour) -> None:
    plugin.enrol("shop")
    plugin.settings["timeoutSeconds"] = 0.3
    with agent(plugin.socket, behaviour):
        assert plugin.call("DEL").code == 0


def test_check_finds_a_namespace_that_is_gone(plugin: Plugin) -> None:
    assert plugin.call("CHECK", CNI_NETNS="/nowhere").error["code"] == 3


def test_status_is_bad_only_when_nothing_could_start(plugin: Plugin) -> None:
    assert plugin.call("STATUS").code == 0
    plugin.enrol("shop")
    assert plugin.call("STATUS").code == 0
    plugin.enrolled.unlink()
    plugin.enrolled.mkdir()
    assert plugin.call("STATUS").error["code"] == 50
    with agent(plugin.socket, ALLOWS):
        assert plugin.call("STATUS").code == 0


def test_gc_takes_a_long_list(plugin: Plugin) -> None:
    attachments = [{"containerID": f"{number:064x}", "ifname": "eth0"} for number in range(5000)]
    netconf = plugin.netconf(**{"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments})
    assert plugin.call("GC", json.dumps(netconf), CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="").code == 0


# --- what it is told wrongly


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"cniVersion": None}, 1),
        ({"cniVersion": "0.2.0"}, 1),
        ({"cniVersion": "1.2.0"}, 1),
        ({"cniVersion": 1}, 1),
        ({"prevResult": None}, 7),
        ({"prevResult": []}, 6),
        ({"prevResult": {"ips": [{"address": "10.0.0.300/8"}]}}, 6),
        ({"prevResult": {"ips": [{"address": "10.0.0.1"}] * 65}}, 6),
        ({"agentSocket": "cni.sock"}, 7),
        ({"agentSocket": "/" + "x" * 200}, 7),
        ({"agentSocket": "/run/\0x"}, 7),
        ({"enrolledNamespaces": 1}, 7),
        ({"timeoutSeconds": -1}, 7),
        ({"timeoutSeconds": "30"}, 7),
        ({"retrySeconds": 1e300}, 7),
    ],
)
def test_configuration_refused(plugin: Plugin, members: dict[str, Any], code: int) -> None:
    netconf = plugin.netconf()
    netconf.update(members)
    with agent(plugin.socket, ALLOWS) as requests:
        error = plugin.call("ADD", json.dumps({k: v for k, v in netconf.items() if v is not None})).error
    assert error["code"] == code
    assert requests == []


BROKEN = ["", " ", "{", "null", "{'a':1}", '{"a":01}', '{"a":1}{}', "[" * 100000, '{"a":' + "[" * 64 + "]" * 64 + "}"]
BROKEN += ['{"a":"\x01"}', '{"a":"\\x"}', '{"a":tru}', '{"a":1.}', '{"a":+1}', '{"a":"', '{"cniVersion":"1.0.0",}']


@pytest.mark.parametrize("text", BROKEN)
def test_input_refused(plugin: Plugin, text: str) -> None:
    assert plugin.call("ADD", text).error["code"] == 6


def test_input_of_any_size_is_refused(plugin: Plugin) -> None:
    assert plugin.call("ADD", b" " * (1 << 21)).error["code"] == 5


@pytest.mark.parametrize(
    "environment",
    [
        {"CNI_COMMAND": "add"},
        {"CNI_COMMAND": ""},
        {"CNI_CONTAINERID": ""},
        {"CNI_CONTAINERID": "a b"},
        {"CNI_NETNS": ""},
        {"CNI_NETNS": "/" * 5000},
        {"CNI_NETNS": "\x01" * 4000},
        {"CNI_ARGS": "K8S_POD_NAMESPACE=shop"},
        {"CNI_ARGS": "K8S_POD_NAME=cart-0"},
        {"CNI_ARGS": POD.replace("shop", "shop\nother")},
        {"CNI_ARGS": POD.replace("shop", "s" * 64)},
    ],
)
def test_environment_refused(plugin: Plugin, environment: dict[str, str]) -> None:
    with agent(plugin.socket, ALLOWS) as requests:
        assert plugin.call(**{"command": "ADD", **environment}).error["code"] == 4
    assert requests == []


# --- what the agent says, or does not


def test_a_refusal_is_an_error_that_says_why(plugin: Plugin) -> None:
    with agent(plugin.socket, says({"ok": False, "reason": 'ztunnel is "away"\n\té'})):
        error = plugin.call("ADD").error
    assert error["cniVersion"] == "1.0.0"
    assert error["code"] == 100
    assert "shop/cart-0" in error["msg"]
    assert 'ztunnel is "away"\n\té' in error["msg"]
    assert "ambit-node" in error["msg"]


def test_a_refusal_without_a_reason(plugin: Plugin) -> None:
    with agent(plugin.socket, says({"ok": False})):
        assert plugin.call("ADD").error["code"] == 100


AWAY = [
    says(b'{"ok":tru'),
    says({"ok": "true"}),
    says({"ok": 1}),
    says([True]),
    says({}),
    says(b"\xff\xfe\x00"),
    says(b'{"ok":true}{}'),
    says(b'{"ok":true,"reason":"' + b"x" * 4096 + b'"}'),
    hangs_up,
    says_nothing,
]


@pytest.mark.parametrize("behaviour", AWAY)
def test_no_usable_answer_holds_back_who_is_enrolled_and_nobody_else(plugin: Plugin, behaviour: Behaviour) -> None:
    plugin.enrol("shopping", "shop", "sho")
    plugin.settings["timeoutSeconds"] = 0.5
    with agent(plugin.socket, behaviour):
        error = plugin.call("ADD").error
        assert error["code"] == 101
        assert "shop/cart-0" in error["msg"]
        assert str(plugin.socket) in error["msg"]
        assert "ambit-node" in error["msg"]
        passed = plugin.call("ADD", CNI_ARGS=POD.replace("shop", "other"))
    assert json.loads(passed.stdout) == RESULT
    assert "other/cart-0" in passed.stderr


@pytest.mark.parametrize("enrolled", [None, "", "shopping\nsho\n", "SHOP", "shop \n", "#shop\n"])
def test_nobody_listens_and_not_enrolled(plugin: Plugin, enrolled: str | None) -> None:
    if enrolled is not None:
        plugin.enrolled.write_text(enrolled)
    assert json.loads(plugin.call("ADD").stdout) == RESULT


@pytest.mark.parametrize("enrolled", ["shop", "shop\n", "a\nshop", "a\n\nshop\nb\n"])
def test_nobody_listens_and_enrolled(plugin: Plugin, enrolled: str) -> None:
    plugin.enrolled.write_text(enrolled)
    assert plugin.call("ADD").error["code"] == 101


def test_a_stale_socket(plugin: Plugin) -> None:
    plugin.enrol("shop")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(plugin.socket))
    assert plugin.call("ADD").error["code"] == 101


def test_another_kind_of_socket_and_no_socket_at_all(plugin: Plugin) -> None:
    plugin.enrol("shop")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(plugin.socket))
        listener.listen()
        assert plugin.call("ADD").error["code"] == 101
    plugin.socket.unlink()
    plugin.socket.write_text("")
    assert plugin.call("ADD").error["code"] == 101


def test_an_agent_whose_queue_is_full(plugin: Plugin) -> None:
    plugin.enrol("shop")
    plugin.settings["timeoutSeconds"] = 0.5
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(plugin.socket))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(str(plugin.socket))
            assert plugin.call("ADD").error["code"] == 101


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "too large", "under a file"])
def test_a_file_of_namespaces_that_cannot_be_read(plugin: Plugin, kind: str) -> None:
    match kind:
        case "directory":
            plugin.enrolled.mkdir()
        case "fifo":
            os.mkfifo(plugin.enrolled)
        case "loop":
            plugin.enrolled.symlink_to(plugin.enrolled)
        case "too large":
            plugin.enrolled.write_text("x\n" * (1 << 20))
        case "under a file":
            plugin.enrolled.write_text("")
            plugin.enrolled /= "enrolled-namespaces"
    error = plugin.call("ADD").error
    assert error["code"] == 102
    assert str(plugin.enrolled) in error["msg"]


def test_an_agent_that_comes_up_while_the_plugin_waits(plugin: Plugin) -> None:
    plugin.enrol("shop")
    plugin.settings["retrySeconds"] = 20
    pending = plugin.start("ADD")
    with pytest.raises(subprocess.TimeoutExpired):
        pending.wait(0.3)
    with agent(plugin.socket, ALLOWS):
        assert json.loads(finish(pending).stdout) == RESULT


def test_an_agent_that_is_restarted_with_the_question_open(plugin: Plugin) -> None:
    plugin.enrol("shop")
    plugin.settings["retrySeconds"] = 20
    with agent(plugin.socket, hangs_up, hangs_up, ALLOWS) as requests:
        assert json.loads(plugin.call("ADD").stdout) == RESULT
    assert requests[0] == requests[2]


def test_many_pods_at_once(plugin: Plugin) -> None:
    names = [f"pod-{number}" for number in range(60)]
    with agent(plugin.socket, ALLOWS) as requests:
        pending = [plugin.start("ADD", CNI_ARGS=POD.replace("cart-0", name)) for name in names]
        assert all(json.loads(finish(process).stdout) == RESULT for process in pending)
    assert sorted(request["podName"] for request in requests) == sorted(names)
