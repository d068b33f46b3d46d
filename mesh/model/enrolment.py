"""Which pods are in the mesh: Istio's rules (cni/pkg/util/enablement_selector.go, annotation names in istio/api).

A pod's own label wins over its namespace's, in both directions. Some pods are never captured, whatever the labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

DATAPLANE_MODE = "istio.io/dataplane-mode"
AMBIENT = "ambient"
NONE = "none"
SIDECAR_STATUS = "sidecar.istio.io/status"
REDIRECTION = "ambient.istio.io/redirection"  # written by the node agent: what is true now
REDIRECTION_ENABLED = "enabled"
REDIRECTION_PENDING = "pending"
REDIRECTION_REASON = "ambit.io/redirection-reason"  # why a pod is not enrolled yet
EXCLUDED_NAMESPACES = frozenset({"kube-system"})
SYSTEM_NAMESPACE = "ambit-system"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Whether a pod is to be captured, and why (shown by `ambit status`)."""

    wanted: bool
    reason: str


def decide(
    namespace: str,
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
    pod_annotations: Mapping[str, str],
    host_network: bool,
    excluded: Collection[str] = EXCLUDED_NAMESPACES,
) -> Enrolment:
    """Pure; exclusions are looked at before any label."""
    if namespace in excluded:
        return Enrolment(False, f"namespace {namespace} is excluded")
    if host_network:
        return Enrolment(False, "the pod uses the host network")
    if SIDECAR_STATUS in pod_annotations:
        return Enrolment(False, f"the pod has a sidecar (annotation {SIDECAR_STATUS})")
    mode = pod_labels.get(DATAPLANE_MODE)
    if mode in (AMBIENT, NONE):
        return Enrolment(mode == AMBIENT, f"pod label {DATAPLANE_MODE}={mode}")
    if namespace_labels.get(DATAPLANE_MODE) == AMBIENT:
        return Enrolment(True, f"namespace label {DATAPLANE_MODE}={AMBIENT}")
    return Enrolment(False, f"no label {DATAPLANE_MODE}={AMBIENT}")
