"""PeerAuthentication as ztunnel enforces it: policies that deny plain text (istio/api security/v1
peer_authentication.proto; istiod: architecture/ambient/peer-authentication.md). Pure.

The most specific policy wins, per field: a workload's, its namespace's, the mesh's; of several on one level the oldest.
Tunnels are accepted in every mode: only STRICT says anything, about what comes without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from controller.compile.policies import INVALID, Labels, selector_of
from controller.compile.problem import Problem
from controller.store import policy_values as values
from controller.store.interface import Key
from controller.store.policy_shapes import PeerAuthenticationSpec, SecurityPolicy
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.workload import PolicyKey

# Kubernetes gives no object such a name, so no AuthorizationPolicy can take its place.
STRICT_NAME = "peer_authentication_strict"
_NAME = "peer_authentication_of_{}"
_PLAIN_TEXT = Clause((Match(not_principals=(StringMatch(MatchKind.PRESENCE),)),))


class Mode(Enum):
    """Of inbound connections; DISABLE is PERMISSIVE to a ztunnel, which takes tunnels from whoever opens one."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"

    def over(self, parent: Mode) -> Mode:
        """The mode in force when the next wider level says `parent`."""
        return parent if self is Mode.UNSET else self


@dataclass(frozen=True, slots=True)
class Authentication:
    """One PeerAuthentication, read. Without a selector it holds for its namespace, or the mesh."""

    selector: Labels
    mode: Mode
    ports: Mapping[int, Mode]
    problems: tuple[Problem, ...] = ()

    def selects(self, labels: Labels) -> bool:
        return bool(self.selector) and self.selector.items() <= labels.items()


def read_authentication(key: Key, policy: SecurityPolicy) -> Authentication:
    """One that cannot be read is STRICT: it was meant to demand something."""
    try:
        spec = msgspec.convert(policy.spec, PeerAuthenticationSpec)
        ports = {values.port(text): Mode(tls.mode) for text, tls in spec.port_level_mtls.items()}
        if ports and not spec.selector.match_labels:
            raise ValueError("portLevelMtls needs a selector")
    except (msgspec.ValidationError, ValueError) as error:
        words = f"it cannot be enforced as written and is STRICT on every port: {error}"
        problem = Problem(key, "spec", words, INVALID)
        return Authentication(selector_of(policy.spec), Mode.STRICT, {}, (problem,))
    return Authentication(spec.selector.match_labels, Mode(spec.mtls.mode), ports)


def exceptions(own: Authentication, parent: Mode) -> tuple[bool, tuple[int, ...]]:
    """Whether plain text is refused in general, and the ports where it is the other way round."""
    mode = own.mode.over(parent)
    strict = mode is Mode.STRICT
    odd = (port for port, its in own.ports.items() if (its.over(mode) is Mode.STRICT) is not strict)
    return strict, tuple(sorted(odd))


def authorization_of(key: Key, own: Authentication, parent: Mode) -> Authorization | None:
    """The policy that stands for a PeerAuthentication with exceptions by port; others need none of their own."""
    strict, ports = exceptions(own, parent)
    if not ports:
        return None
    match = Match(not_destination_ports=ports) if strict else Match(destination_ports=ports)
    return _deny(key.namespace, _NAME.format(key.name), (_PLAIN_TEXT, Clause((match,))))


def strict_everywhere(namespace: str) -> Authorization:
    """What workloads refer to where plain text is refused on all ports."""
    return _deny(namespace, STRICT_NAME, (_PLAIN_TEXT,))


def reference(key: Key | None, own: Authentication | None, parent: Mode, strict: PolicyKey) -> tuple[PolicyKey, ...]:
    """The policies that a workload refers to; `own` (and its key) is the PeerAuthentication that selects it."""
    if own is not None and key is not None:
        refused, ports = exceptions(own, parent)
        if ports:
            return (PolicyKey(f"{key.namespace}/{_NAME.format(key.name)}"),)
    else:
        refused = parent is Mode.STRICT
    return (strict,) if refused else ()


def _deny(namespace: str, name: str, clauses: Iterable[Clause]) -> Authorization:
    return Authorization(name, namespace, PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (Rule(tuple(clauses)),))
