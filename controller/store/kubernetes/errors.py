"""What an API server answers instead of what was asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.store.interface import Conflict, NotFound, StoreError

_MAX_TEXT = 500  # of an answer that is no Status: a proxy's page, say


class Unreachable(StoreError):
    """No answer: nobody listens, the connection broke, TLS failed, or it took too long."""


class AlreadyExists(Conflict):
    """What was to be created is there."""


class Gone(StoreError):
    """410: the history that a watch or a list wanted to go on from is compacted; everything has to be listed again."""


class Refused(StoreError):
    """Any other answer."""


def of_answer(code: int, body: bytes, what: str) -> StoreError:
    """The error for an HTTP answer that is none of 2xx; `what` says what was asked."""
    try:
        status: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict):
        status = {"message": " ".join(body[:_MAX_TEXT].decode(errors="replace").split())}
    return of_status({**status, "code": code}, what)


def of_status(status: dict[str, Any], what: str) -> StoreError:
    """The error for a metav1.Status object."""
    code, reason = status.get("code"), status.get("reason")
    text = f"{what}: {status.get('message') or reason or 'no reason given'} ({code})"
    if code == 409 and reason == "AlreadyExists":
        return AlreadyExists(text)
    match code:
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case 410:
            return Gone(text)
    return Refused(text)
