"""Manifests to objects. All that is wrong is said at once, one sentence each, before anything is changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.store import kinds
from controller.store.checks import check
from controller.store.finding import Finding
from controller.store.interface import Key, Object, StoreError
from controller.store.yaml_text import Document, Path, TextError, show
from controller.store.yaml_text import parse as parse_text


class ManifestError(StoreError):
    """`problems` are sentences: where, which object, which field, what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Sourced:
    """An object with the place that it comes from: "shop.yaml:12"."""

    where: str
    object: dict[str, Any]

    @property
    def key(self) -> Key:
        return kinds.key_of(self.object)


def parse(text: str, source: str, namespace: str = kinds.DEFAULT_NAMESPACE) -> list[dict[str, Any]]:
    """The objects of one manifest, each in a namespace. Raises ManifestError."""
    return parse_all([(source, text)], namespace)


def parse_all(texts: Iterable[tuple[str, str]], namespace: str = kinds.DEFAULT_NAMESPACE) -> list[dict[str, Any]]:
    """The objects of several manifests, given as (source, text), that are applied together. Raises ManifestError."""
    problems: list[str] = []
    found: list[Sourced] = []
    for source, text in texts:
        for each in _read(text, source, namespace):
            if isinstance(each, str):
                problems.append(each)
            else:
                found.append(each)
    problems += _twice(found)
    if problems:
        raise ManifestError(problems)
    return [each.object for each in found]


def check_together(objects: Iterable[Object]) -> None:
    """Raises ManifestError when an object is there twice."""
    seen: set[Key] = set()
    for obj in objects:
        key = kinds.key_of(obj)
        if key in seen:
            raise ManifestError([f"{key} is in the manifests twice"])
        seen.add(key)


def check_object(obj: Object, where: str = "") -> None:
    """Raises ManifestError with all that is wrong with one object."""
    prefix = f"{where}: " if where else ""
    problems = [prefix + _sentence(obj, finding) for finding in find_problems(obj)]
    if problems:
        raise ManifestError(problems)


def find_problems(obj: Any) -> Iterator[Finding]:
    """What is wrong with a value that should be an object."""
    if not isinstance(obj, Mapping):
        yield Finding((), "a document is a mapping with apiVersion, kind and metadata")
        return
    for name in ("apiVersion", "kind"):
        if not isinstance(obj.get(name), str):
            yield Finding((name,) if name in obj else (), f"{name} is missing" if name not in obj else "must be text")
            return
    try:
        kind = kinds.find(obj["apiVersion"], obj["kind"])
    except StoreError as problem:
        yield Finding(("kind",), str(problem))
        return
    if not isinstance(obj.get("metadata"), Mapping):
        yield Finding((), "metadata is missing")
        return
    yield from check(obj, kind)


def _read(text: str, source: str, namespace: str) -> Iterator[Sourced | str]:
    try:
        for document in parse_text(text):
            for path, value in _objects(document):
                yield from _object(document, path, value, source, namespace)
    except TextError as error:
        yield f"{source}:{error.place.line}:{error.place.column}: {error.reason}"


def _objects(document: Document) -> Iterator[tuple[Path, Any]]:
    """The document itself, or the items of a List (what `kubectl get -o yaml` prints)."""
    value = document.value
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        yield from ((("items", number), item) for number, item in enumerate(value["items"]))
    else:
        yield (), value


def _object(document: Document, path: Path, value: Any, source: str, namespace: str) -> Iterator[Sourced | str]:
    findings = list(find_problems(value))
    for finding in findings:
        place = document.place((*path, *finding.path))
        yield f"{source}:{place.line}:{place.column}: {_sentence(value, finding)}"
    if not findings:
        if kinds.find(value["apiVersion"], value["kind"]).namespaced:
            value["metadata"].setdefault("namespace", namespace)
        yield Sourced(f"{source}:{document.place(path).line}", value)


def _twice(found: Sequence[Sourced]) -> Iterator[str]:
    first: dict[Key, str] = {}
    for each in found:
        if each.key in first:
            yield f"{each.where}: {each.key} is already at {first[each.key]}"
        first.setdefault(each.key, each.where)


def _sentence(obj: Any, finding: Finding) -> str:
    if not isinstance(obj, Mapping):
        return finding.text
    return ": ".join(filter(None, (_name(obj), show(finding.path), finding.text)))


def _name(obj: Object) -> str:
    """What can be said about an object that may be wrong in any way."""
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    names = [name for name in (metadata.get("namespace"), metadata.get("name")) if isinstance(name, str)]
    kind = obj.get("kind")
    return f"{kind if isinstance(kind, str) else 'object'} {'/'.join(names)}".strip()
