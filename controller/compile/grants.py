"""What may be referred to from another namespace (gateway-api apis/v1 referencegrant_types, GEP-1294). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from controller.store.gateway_shapes import GROUP, ReferenceGrant
from controller.store.interface import Key


def permits(grants: Iterable[ReferenceGrant], kind: str, namespace: str, target: Key) -> bool:
    """Whether a route of this kind and namespace may refer to the Service `target`; `grants` are of any namespace."""
    return target.namespace == namespace or any(
        grant.metadata.namespace == target.namespace
        and any((each.group, each.kind, each.namespace) == (GROUP, kind, namespace) for each in grant.spec.from_)
        and any((each.group, each.kind) == ("", "Service") and each.name in ("", target.name) for each in grant.spec.to)
        for grant in grants
    )


def is_consumed(target: Key, parents: Collection[Key | None]) -> bool:
    """Whether a route's parents make `target` what its clients dial anyway: then they need nobody's grant for it.

    GEP-1294 would have no grants in a mesh at all. Here one is needed as soon as the route could lead to another
    namespace what was not meant for it.
    """
    return target in parents and all(each is not None and each.namespace == target.namespace for each in parents)
