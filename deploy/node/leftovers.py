"""What pods that have gone have left in the kernel, removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from deploy.node.around import Capture

log = logging.getLogger("node-agent")


def sweep(capture: Capture, known: Mapping[str, int], cookie_of: Callable[[str], int | None]) -> None:
    """`known` are the cookies of pods that are looked after, by uid; `cookie_of` finds that of any other uid.

    A pod whose object is gone and that still runs stays captured to its end; and while it is not known where one of
    them is, any captured namespace may be it."""
    living, unknown = set(known.values()), False
    for uid in capture.attached_inbound() - known.keys():
        cookie = cookie_of(uid)
        if cookie is not None:
            living.add(cookie)
        elif capture.is_attached_to_living(uid):
            unknown = True
        else:
            capture.detach_inbound(uid)
    for cookie in frozenset() if unknown else capture.enrolled() - living:
        log.info("network namespace %d is no pod's any more: it is not captured any more", cookie)
        capture.withdraw(cookie)
