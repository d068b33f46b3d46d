"""Where an API server has an object: the URL paths of the Kubernetes API. Pure."""

from __future__ import annotations

from controller.store.interface import Key, Kind, NotFound


def collection(kind: Kind, namespace: str = "") -> str:
    """Of all namespaces when none is named."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    inside = f"/namespaces/{segment(namespace)}" if kind.namespaced and namespace else ""
    return f"{root}{inside}/{kind.plural}"


def of(kind: Kind, name: str, namespace: str = "", subresource: str = "") -> str:
    """Raises NotFound for a name that no object can have: it would lead to another path."""
    if not _is_segment(name):
        raise NotFound(f"there is no {Key(kind.kind, namespace, name)}")
    return f"{collection(kind, namespace)}/{name}" + (f"/{subresource}" if subresource else "")


def segment(text: str) -> str:
    if not _is_segment(text):
        raise NotFound(f"there is no namespace {text!r}")
    return text


def _is_segment(text: str) -> bool:
    """As apimachinery's IsValidPathSegmentName, and nothing that a URL would need to escape."""
    return text not in ("", ".", "..") and all(each.isascii() and (each.isalnum() or each in "-._:") for each in text)
