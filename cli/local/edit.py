"""What `ambit local` does to objects: read manifests, apply, label, delete, and wait for what was asked to be true."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cli.errors import fail
from cli.local.resources import SHORT_NAMES
from controller.store import kinds, manifest
from controller.store.directory import DirectoryStore
from controller.store.interface import Key, Kind, NotFound, Object
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION, REDIRECTION_ENABLED, REDIRECTION_REASON, decide

# A pod is enrolled within tenths of a second; a minute without progress means that something is wrong.
PATIENCE = 60.0
GLANCE = 0.05


def spoken(key: Key) -> str:
    """As kubectl says it: pod/web-1."""
    return f"{key.kind.lower()}/{key.name}"


# --- words


def kind_named(word: str) -> Kind:
    """The kind that a user's word means: singular, plural or short, in any case."""
    wanted = SHORT_NAMES.get(word.lower(), word.lower())
    for kind in kinds.KINDS:
        if wanted in (kind.plural, kind.kind.lower(), f"{kind.plural}.{kind.group}"):
            return kind
    fail(f"unknown kind {word!r}; known are {', '.join(sorted(kind.plural for kind in kinds.KINDS))}")


def resource(word: str, name: str = "") -> tuple[Kind, str]:
    """KIND and NAME, or KIND/NAME."""
    kind, slash, rest = word.partition("/")
    return kind_named(kind), rest if slash else name


def parse_label(word: str, words: Sequence[str]) -> tuple[Kind, str, dict[str, str | None]]:
    """The object and its label changes; None removes one."""
    kind, name = resource(word)
    rest = list(words)
    if not name:
        if not rest:
            fail("no name given: ambit local label KIND NAME KEY=VALUE")
        name = rest.pop(0)
    changes: dict[str, str | None] = {}
    for change in rest:
        key, equals, value = change.partition("=")
        if not equals and not change.endswith("-"):
            fail(f"{change!r} is neither KEY=VALUE nor KEY-")
        changes[key if equals else change[:-1]] = value if equals else None
    if not changes:
        fail("no label given: KEY=VALUE sets one, KEY- removes it")
    return kind, name, changes


# --- manifests


def read_manifests(names: Sequence[str], namespace: str) -> list[Object]:
    """All objects of files, directories (*.yaml, *.yml, *.json) and standard input ("-"), all of them checked."""
    objects = manifest.parse_all((text for name in names for text in _texts(name)), namespace)
    if not objects:
        fail(f"no objects in {', '.join(names)}")
    return list(objects)


def _texts(name: str) -> Iterable[tuple[str, str]]:
    if name == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(name)
    files = (
        sorted(entry for entry in path.iterdir() if entry.suffix in (".yaml", ".yml", ".json"))
        if path.is_dir()
        else [path]
    )
    for file in files:
        try:
            yield str(file), file.read_text()
        except (OSError, UnicodeDecodeError) as problem:
            fail(f"cannot read {file}: {getattr(problem, 'strerror', None) or problem}")


# --- changes


async def apply(store: DirectoryStore, objects: Sequence[Object]) -> list[tuple[str, Key]]:
    """What happened to each: created, configured or unchanged. Namespaces go first, whatever the order in the files."""
    await _check_namespaces(store, objects)
    done = []
    for obj in sorted(objects, key=lambda obj: obj["kind"] != "Namespace"):
        key = kinds.key_of(obj)
        before = await _version(store, key)
        after = (await store.apply(obj))["metadata"].get("resourceVersion")
        verb = "created" if before is None else "unchanged" if before == after else "configured"
        done.append((verb, key))
    return done


async def _check_namespaces(store: DirectoryStore, objects: Sequence[Object]) -> None:
    """Nothing ever comes of an object whose namespace does not exist, so Kubernetes takes none."""
    known = {each["metadata"]["name"] for each in await store.list(kinds.NAMESPACE)}
    known |= {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    for key in map(kinds.key_of, objects):
        if key.namespace and key.namespace not in known:
            fail(f"{spoken(key)}: metadata.namespace: there is no namespace {key.namespace}")


async def _version(store: DirectoryStore, key: Key) -> str | None:
    try:
        return str((await store.get(kinds.named(key.kind), key.name, key.namespace))["metadata"].get("resourceVersion"))
    except NotFound:
        return None


async def label(store: DirectoryStore, key: Key, changes: Mapping[str, str | None], overwrite: bool) -> None:
    def edit(obj: dict[str, Any]) -> None:
        labels = obj["metadata"].setdefault("labels", {})
        for name, value in changes.items():
            if value is None:
                labels.pop(name, None)
            elif not overwrite and labels.get(name, value) != value:
                fail(f"{spoken(key)} already has {name}={labels[name]}; --overwrite changes it")
            else:
                labels[name] = value

    await store.change(key, edit)


def keys_to_delete(word: str, names: Sequence[str], namespace: str, files: Sequence[str]) -> list[Key]:
    """From manifests, or from KIND NAME ... and KIND/NAME."""
    if files:
        return [kinds.key_of(obj) for obj in reversed(read_manifests(files, namespace))]
    if not word:
        fail("nothing to delete: give KIND NAME, KIND/NAME, or -f FILE")
    kind, name = resource(word)
    chosen = [name, *names] if name else list(names)
    if not chosen:
        fail(f"no name given: ambit local delete {word} NAME")
    return [Key(kind.kind, namespace if kind.namespaced else "", each) for each in chosen]


async def delete(store: DirectoryStore, keys: Sequence[Key], wait: bool) -> None:
    missing = []
    for key in keys:
        try:
            await store.delete(key)
            print(f"{spoken(key)} deleted")
        except NotFound as problem:
            missing.append(str(problem))
    if wait:
        for key in keys:
            await _until(partial(_gone, store, key), partial(str, f"{spoken(key)} is still being deleted"))
    if missing:
        fail("; ".join(missing))


async def _gone(store: DirectoryStore, key: Key) -> bool:
    return await _version(store, key) is None


# --- pods


async def pod_name(store: DirectoryStore, word: str, namespace: str) -> str:
    """POD, pod/POD or deploy/NAME: then its first pod that runs."""
    kind, slash, name = word.partition("/")
    if not slash or kind_named(kind).kind == "Pod":
        return name or word
    owner = await store.get(kind_named(kind), name, namespace)
    wanted = owner["spec"]["selector"].get("matchLabels", owner["spec"]["selector"])
    for pod in await store.list(kinds.POD, namespace):
        labels = pod["metadata"].get("labels", {})
        if wanted.items() <= labels.items() and pod.get("status", {}).get("phase") == "Running":
            return str(pod["metadata"]["name"])
    fail(f"no running pod of {word} in namespace {namespace}")


async def wait_ready(store: DirectoryStore, objects: Sequence[Object]) -> None:
    """Until the pods and deployments among `objects` are ready."""
    for key in [kinds.key_of(obj) for obj in objects if obj["kind"] in ("Pod", "Deployment")]:
        await _until(partial(_ready, store, key), partial(str, f"{spoken(key)} is not ready"))


async def _ready(store: DirectoryStore, key: Key) -> bool:
    obj = await store.get(kinds.named(key.kind), key.name, key.namespace)
    status = obj.get("status", {})
    if key.kind == "Deployment":
        return int(status.get("readyReplicas", 0)) >= int(obj["spec"].get("replicas", 1))
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", []))


# --- enrolment


def concerns_enrolment(kind: Kind, changes: Mapping[str, str | None]) -> bool:
    return DATAPLANE_MODE in changes and kind.kind in ("Namespace", "Pod")


async def wait_enrolled(store: DirectoryStore, key: Key, tell: Callable[[str], None]) -> None:
    """Until each pod that the label concerns is captured, or not, as its labels say; tells what holds which pods up."""
    namespace = key.name if key.kind == "Namespace" else key.namespace
    behind: Sequence[Object] = ()

    async def settled() -> bool:
        nonlocal behind
        behind = await _behind(store, namespace)
        tell(_reasons(behind))
        return not behind

    def otherwise() -> str:
        why = _reasons(behind) or ", ".join(pod["metadata"]["name"] for pod in behind)
        return f"pods in {namespace} are not yet as labelled; {why}; see ambit status"

    await _until(settled, otherwise)


async def _behind(store: DirectoryStore, namespace: str) -> Sequence[Object]:
    """The pods that are not yet as their labels say."""
    labels = (await store.get(kinds.NAMESPACE, namespace))["metadata"].get("labels") or {}
    return [pod for pod in await store.list(kinds.POD, namespace) if not _settled(pod, namespace, labels)]


def _reasons(pods: Iterable[Object]) -> str:
    """What the node agent has written to pods that it cannot enrol; it does so after some seconds. Alike ones once."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        reason = (pod["metadata"].get("annotations") or {}).get(REDIRECTION_REASON)
        if reason:
            found.setdefault(reason, []).append(pod["metadata"]["name"])
    return "; ".join(f"{', '.join(sorted(names))}: {reason}" for reason, names in sorted(found.items()))


def _settled(pod: Object, namespace: str, namespace_labels: Mapping[str, str]) -> bool:
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    wanted = decide(namespace, namespace_labels, labels, annotations, bool(pod["spec"].get("hostNetwork"))).wanted
    running: bool = pod.get("status", {}).get("phase") == "Running"
    return bool((annotations.get(REDIRECTION) == REDIRECTION_ENABLED) == (wanted and running))


async def _until(true: Callable[[], Awaitable[bool]], otherwise: Callable[[], str]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not await true():
        if loop.time() > deadline:
            fail(f"after {PATIENCE:.0f} s {otherwise()}")
        await asyncio.sleep(GLANCE)
