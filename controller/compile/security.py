"""The security policies of the mesh, compiled, and the pods that each concerns.

A workload names the policies that select it, so that one which ztunnel does not have denies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from controller.compile.peer_authentication import (
    STRICT_NAME,
    Authentication,
    Mode,
    authorization_of,
    read_authentication,
    reference,
    strict_everywhere,
)
from controller.compile.policies import CompiledPolicy, compile_policy
from controller.compile.problem import Problem
from controller.store.interface import Key
from controller.store.policy_shapes import SecurityPolicy
from controller.store.shapes import Pod
from mesh.model.policy import Authorization, PolicyScope
from mesh.model.workload import PolicyKey

Labels = Mapping[str, str]
Wanted = Callable[[Authentication], bool]
Value = TypeVar("Value")


class SecurityPolicies:
    """Cost of a change: the pods of its namespace; of a mesh-wide PeerAuthentication, all pods."""

    def __init__(self, root_namespaces: tuple[str, ...]) -> None:
        """Policies of `root_namespaces` that select nothing hold everywhere, and selectors there select everywhere."""
        self._root_namespaces = root_namespaces
        self._pods: dict[str, dict[Key, Labels]] = {}
        self._policies: dict[str, dict[Key, CompiledPolicy]] = {}
        self._authentications: dict[str, dict[Key, tuple[str, Authentication]]] = {}  # with their ages
        self.strict = strict_everywhere(root_namespaces[-1])
        self._strict_key = PolicyKey(f"{root_namespaces[-1]}/{STRICT_NAME}")

    # --- changes; each returns whom it concerns

    def pod_changed(self, key: Key, pod: Pod | None) -> None:
        _put(self._pods, key, pod.metadata.labels if pod is not None else None)

    def policy_changed(self, key: Key, policy: SecurityPolicy | None) -> set[Key]:
        now = compile_policy(key, policy, self._root_namespaces) if policy is not None else None
        before = _put(self._policies, key, now)
        if before == now:  # only its status, say
            return set()
        versions = [each for each in (before, now) if each is not None and each.selector]
        return {
            pod for pod, labels in self._pods_for(key.namespace) if any(version.selects(labels) for version in versions)
        }

    def authentication_changed(self, key: Key, policy: SecurityPolicy | None) -> set[Key]:
        wide = key.namespace in self._root_namespaces
        namespaces = [*self._pods.keys() | self._authentications.keys()] if wide else [key.namespace]
        modes = {namespace: self._mode(namespace) for namespace in namespaces}
        now = (policy.metadata.creation_timestamp, read_authentication(key, policy)) if policy is not None else None
        before = _put(self._authentications, key, now)
        if before == now:
            return set()
        concerned = {
            pod
            for pod, labels in self._pods.get(key.namespace, {}).items()
            if any(version[1].selects(labels) for version in (before, now) if version is not None)
        }
        for namespace, mode in modes.items():
            if self._mode(namespace) is not mode:
                concerned.update(self._pods.get(namespace, ()), self._authentications.get(namespace, ()))
        return concerned

    # --- what is compiled

    def policy(self, key: Key) -> CompiledPolicy:
        return self._policies.get(key.namespace, {}).get(key, CompiledPolicy())

    def authentication(self, key: Key) -> tuple[Authorization | None, tuple[Problem, ...]]:
        found = self._authentications.get(key.namespace, {}).get(key)
        if found is None:
            return None, ()
        return authorization_of(key, found[1], self._mode(key.namespace)), found[1].problems

    def references(self, pod: Pod) -> tuple[PolicyKey, ...]:
        """What selects the pod, in order of name."""
        return tuple(sorted({*self._selecting(pod), *self._demanded(pod)}))

    def _selecting(self, pod: Pod) -> Iterator[PolicyKey]:
        for namespace in {pod.metadata.namespace, *self._root_namespaces}:
            for compiled in self._policies.get(namespace, {}).values():
                authorization = compiled.authorization
                if authorization is None or authorization.scope is not PolicyScope.WORKLOAD_SELECTOR:
                    continue
                if compiled.selects(pod.metadata.labels):
                    yield authorization.key

    def _demanded(self, pod: Pod) -> tuple[PolicyKey, ...]:
        namespace = pod.metadata.namespace
        own = self._oldest(namespace, lambda each: each.selects(pod.metadata.labels))
        key, authentication = own if own is not None else (None, None)
        return reference(key, authentication, self._mode(namespace), self._strict_key)

    def _mode(self, namespace: str) -> Mode:
        """What holds for workloads that nothing selects."""
        return self._own_mode(namespace).over(self._mesh_mode()).over(Mode.PERMISSIVE)

    def _mesh_mode(self) -> Mode:
        modes = (self._own_mode(namespace) for namespace in self._root_namespaces)
        return next((mode for mode in modes if mode is not Mode.UNSET), Mode.UNSET)

    def _own_mode(self, namespace: str) -> Mode:
        found = self._oldest(namespace, lambda each: not each.selector)
        return found[1].mode if found is not None else Mode.UNSET

    def _oldest(self, namespace: str, wanted: Wanted) -> tuple[Key, Authentication] | None:
        candidates = [
            (not age, age, key, each)
            for key, (age, each) in self._authentications.get(namespace, {}).items()
            if wanted(each)
        ]
        if not candidates:
            return None
        *_, key, found = min(candidates, key=lambda each: each[:3])
        return key, found

    def _pods_for(self, namespace: str) -> Iterator[tuple[Key, Labels]]:
        namespaces = [*self._pods] if namespace in self._root_namespaces else [namespace]
        for each in namespaces:
            yield from self._pods.get(each, {}).items()


def _put(groups: dict[str, dict[Key, Value]], key: Key, value: Value | None) -> Value | None:
    """By namespace; returns what was there."""
    group = groups.setdefault(key.namespace, {})
    before = group.pop(key, None)
    if value is not None:
        group[key] = value
    elif not group:
        del groups[key.namespace]
    return before
