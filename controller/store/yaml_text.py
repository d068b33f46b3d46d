"""YAML and JSON text to plain values that know where in the text they were.

Read from parser events rather than through PyYAML's composer: that one recurses in C and crashes the process on deeply
nested input, takes the last of two equal keys, and turns 22:22 into a number (YAML 1.1) as Kubernetes does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_DEPTH = 64  # real manifests stay below 20
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
MAX_VALUES = 200_000  # per document, aliases expanded: no small text becomes gigabytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a text, both counted from 1."""

    line: int
    column: int


class TextError(Exception):
    """The text is not YAML or JSON that can be used. `place` is where."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the place of every value in it by path."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path) -> Place:
        """Of the value at `path`, or of the closest one around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))


def show(path: Path) -> str:
    """As people write it: spec.ports[0].port, metadata.labels["app.kubernetes.io/name"]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").isalnum():
            text += f".{part}"
        else:
            text += f'["{part}"]'
    return text.removeprefix(".")


class _Loader(yaml.CSafeLoader):
    """Without timestamps: in Kubernetes they are text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Iterator[Document]:
    """The documents of `text`, empty ones left out. Raises TextError."""
    if text.lstrip()[:1] == "{":  # JSON may be indented with tabs, YAML may not
        try:
            yield Document(json.loads(text, object_pairs_hook=_json_object))
            return
        except (ValueError, RecursionError):
            pass  # flow-style YAML, or wrong: the YAML parser says where
    try:
        reader = _Loader(text)
        while reader.check_event():
            event = reader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                document = _Builder(reader).document()
                if document.value is not None:
                    yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TextError(_place(mark), _problem(error.problem or "")) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise TextError(place, f"the character U+{_code(error.character):04X} is not allowed") from None


def _problem(said: str) -> str:
    """In our words where PyYAML, from 6.0.4 on, finds out first because it looks ahead."""
    return TOO_DEEP if "nesting depth" in said else said or "malformed YAML"


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(character)


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise TextError(Place(1, 1), f"the key {key} is there twice")
        keys.add(key)
    return {key: value for key, value in pairs if value is not None}


def _height(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_height, below), default=0)


class _Builder:
    """One document from the events of a reader."""

    def __init__(self, reader: _Loader) -> None:
        self._reader = reader
        self._anchors: dict[str, tuple[Any, int, int]] = {}  # value, how many values, how many levels
        self._places: dict[Path, Place] = {}
        self._values = 0

    def document(self) -> Document:
        return Document(self._value(self._next(), ()), self._places)

    def _next(self) -> Any:
        return self._reader.get_event()

    def _value(self, event: Any, path: Path) -> Any:
        place = self._places[path] = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, path, place)
        before = self._values
        self._count(1, place)
        self._go_down(len(path), place)
        value = self._content(event, path, place)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._values - before, _height(value))
        return value

    def _content(self, event: Any, path: Path, place: Place) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(self._reader, event, place)
        if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise TextError(place, f"the tag {event.tag} is not allowed")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _alias(self, anchor: str | None, path: Path, place: Place) -> Any:
        if anchor is None or anchor not in self._anchors:
            raise TextError(place, f"the alias *{anchor} has no anchor before it")
        value, size, height = self._anchors[anchor]
        self._count(size, place)
        self._go_down(len(path) + height, place)
        return value

    def _go_down(self, depth: int, place: Place) -> None:
        if depth > MAX_DEPTH:
            raise TextError(place, TOO_DEEP)

    def _count(self, values: int, place: Place) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise TextError(place, f"a document of more than {MAX_VALUES} values")

    def _sequence(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        return values

    def _mapping(self, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            if key in own:
                raise TextError(_place(event.start_mark), f"the key {key} is there twice")
            value = self._value(self._next(), (*path, key))
            if key == "<<" and event.implicit[0]:
                merged = _merge_key(value, _place(event.start_mark)) | merged
            else:
                own[key] = value
        return {key: value for key, value in (merged | own).items() if value is not None}

    def _key(self, event: Any) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        raise TextError(_place(event.start_mark), "a key is text")


def _merge_key(value: Any, place: Place) -> dict[str, Any]:
    """YAML's merge key: earlier mappings win."""
    result: dict[str, Any] = {}
    for mapping in value if isinstance(value, list) else [value]:
        if not isinstance(mapping, dict):
            raise TextError(place, "<< merges mappings")
        result = mapping | result
    return result


def _scalar(reader: Any, event: Any, place: Place) -> Any:
    tag = event.tag if event.tag not in (None, "!") else reader.resolve(yaml.ScalarNode, event.value, event.implicit)
    text: str = event.value
    match tag.removeprefix("tag:yaml.org,2002:"):
        case "str" | "merge" | "value":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int" | "float" as kind:
            return _number(text, kind, place)
    raise TextError(place, f"the tag {tag} is not allowed")


def _number(text: str, kind: str, place: Place) -> int | float | str:
    digits = text.replace("_", "").lower()
    if ":" in digits:
        return text
    try:
        if kind == "int":
            octal = digits.lstrip("+-").startswith("0") and digits.lstrip("+-").isdigit()
            return int(digits, 8) if octal else int(digits, 0)
        number = float(digits)
    except ValueError:
        raise TextError(place, f"{text} is not a number") from None
    if not math.isfinite(number):
        raise TextError(place, f"{text} is not a number")
    return number
