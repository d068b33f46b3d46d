"""Label selectors (metav1.LabelSelector). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.store.shapes import LabelSelector


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """An empty selector selects everything; an operator that is not known, nothing."""
    return selector.match_labels.items() <= labels.items() and all(
        _holds(each, labels) for each in selector.match_expressions
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = str(expression.get("key")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
