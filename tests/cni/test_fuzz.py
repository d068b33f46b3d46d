"""Hostile bytes: the JSON reader against Python's, and the whole program under sanitizers."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cni.conftest import SOURCES
from tests.cni.plugin import POD, Plugin, agent, says

TOKENS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u",
    b"d83d",
    b"\\ud83d\\ude00",
    b"\\u0000",
    b"\x00",
    b"\x7f",
]
TOKENS += [
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    "é\U0001f600".encode(),
    b"-",
    b"0",
    b"1e",
    b".5",
    b"E+9",
]
TOKENS += [
    b"true",
    b"null",
    b"fals",
    b" ",
    b"\n",
    b"\x1f",
    b"[[[[[[[[" * 8,
    b"]]]]]]]]" * 8,
    b'{"":' * 20,
    b'"cniVersion":"1.1.0"',
]

SEED = {
    "cniVersion": "1.0.0",
    "timeoutSeconds": 1.5,
    "prevResult": {"ips": [{"address": "10.0.0.1/8"}], "é\n": [None, -0.5e-3]},
}
quick = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> bytes:
    """JSON with a few pieces cut out and others put in."""
    data = json.dumps(document, ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 8, 100])))
        data = data[:start] + draw(st.sampled_from(TOKENS) | st.binary(max_size=3)) + data[end:]
    return data


texts = st.binary(max_size=40) | st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join) | mutated(SEED)


class Json(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("length", ctypes.c_size_t))


@pytest.fixture(scope="module")
def reader(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The JSON reader alone; undefined behaviour ends the process."""
    out = tmp_path_factory.mktemp("json") / "json.so"
    flags = ["-shared", "-fPIC", "-O1", "-g", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    subprocess.run(["cc", *flags, "-o", out, SOURCES / "json.c", SOURCES / "text.c"], check=True)
    library = ctypes.CDLL(str(out))
    library.json_is_valid.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(Json)]
    library.json_member.argtypes = [Json, ctypes.c_char_p, ctypes.POINTER(Json)]
    library.json_string.argtypes = [Json, ctypes.c_char_p, ctypes.c_size_t]
    for name in ("json_is_valid", "json_member", "json_string"):
        getattr(library, name).restype = ctypes.c_bool
    return library


def by_python(data: bytes) -> tuple[bool, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return True, json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False, None


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


@settings(quick, max_examples=3000)
@given(data=texts)
def test_the_reader_takes_what_python_takes(reader: ctypes.CDLL, data: bytes) -> None:
    value = Json()
    taken = reader.json_is_valid(data, len(data), ctypes.byref(value))
    valid, document = by_python(data)
    assert taken == (valid and depth(document) <= 64)
    if taken:
        raw = ctypes.string_at(value.at, value.length)
        assert raw == data.strip(b" \t\r\n")


@settings(quick, max_examples=1000)
@given(text=st.text(max_size=30), escaped=st.booleans(), capacity=st.integers(1, 200))
def test_the_reader_decodes_what_python_decodes(reader: ctypes.CDLL, text: str, escaped: bool, capacity: int) -> None:
    data = json.dumps({"a": 0, "é": text}, ensure_ascii=escaped).encode()
    value, out = Json(), ctypes.create_string_buffer(capacity)
    assert reader.json_is_valid(data, len(data), ctypes.byref(value))
    assert reader.json_member(value, "é".encode(), ctypes.byref(value))
    fits = len(text.encode()) < capacity and "\0" not in text
    assert reader.json_string(value, out, capacity) == fits
    if fits:
        assert out.value == text.encode()


class Talker:
    """An agent that says whatever it is told to say next."""

    def __init__(self) -> None:
        self.answer = b""

    def __call__(self, stream: Any) -> None:
        says(self.answer)(stream)


@pytest.fixture
def talking(sanitized: Path, tmp_path: Path) -> Iterator[tuple[Plugin, Talker]]:
    plugin, talker = Plugin(sanitized, tmp_path / "cni.sock", tmp_path / "enrolled-namespaces"), Talker()
    plugin.enrol("shop")
    with agent(plugin.socket, talker):
        yield plugin, talker


def check(plugin: Plugin, command: str, text: bytes, **environment: str) -> None:
    outcome = plugin.call(command, text, **environment)
    assert outcome.code in (0, 1), outcome
    assert "Sanitizer" not in outcome.stderr
    assert "runtime error" not in outcome.stderr
    if command == "DEL":
        assert (outcome.code, outcome.stdout) == (0, "")
    elif outcome.code == 1:
        assert outcome.error["code"] > 0
    elif command in ("ADD", "VERSION"):
        assert isinstance(json.loads(outcome.stdout), dict)
    else:
        assert outcome.stdout == ""


commands = st.sampled_from(["ADD", "ADD", "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
names = st.sampled_from(["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "", "IgnoreUnknown"])
values = st.sampled_from(["shop", "cart-0", "x" * 300, "", "=", "é", "\n", "a b"])
arguments = st.just(POD) | st.lists(st.tuples(names, values).map("=".join), max_size=4).map(";".join)


@settings(quick, max_examples=150)
@given(
    data=st.data(),
    command=commands,
    said=arguments,
    netns=st.sampled_from(["/proc/self/ns/net", "", "x" * 9000, '"\\\x01']),
)
def test_the_program_survives_its_configuration(
    talking: tuple[Plugin, Talker], data: st.DataObject, command: str, said: str, netns: str
) -> None:
    plugin, talker = talking
    talker.answer = b'{"ok":true}'
    plugin.settings = {"retrySeconds": 0, "timeoutSeconds": 2}
    check(plugin, command, data.draw(mutated(plugin.netconf()) | texts), CNI_ARGS=said, CNI_NETNS=netns)


answers = (
    mutated({"ok": False, "reason": "ztunnel \u00e9\n\x01 is away"}) | texts | st.binary(min_size=4000, max_size=5000)
)


@settings(quick, max_examples=100)
@given(answer=answers.filter(bool))
def test_the_program_survives_its_agent(talking: tuple[Plugin, Talker], answer: bytes) -> None:
    plugin, talker = talking
    talker.answer = answer
    valid, document = by_python(answer)
    allowed = valid and len(answer) <= 4096 and isinstance(document, dict) and document.get("ok") is True
    assert (plugin.call("ADD").code == 0) == allowed
    check(plugin, "ADD", json.dumps(plugin.netconf()).encode())


@pytest.mark.parametrize(
    "make", [lambda: b"{" * 1_000_000, lambda: b'{"a":' * 200_000, lambda: b'"' + b"\\u1234" * 170_000]
)
def test_large_input_under_sanitizers(talking: tuple[Plugin, Talker], make: Callable[[], bytes]) -> None:
    check(talking[0], "ADD", make())
