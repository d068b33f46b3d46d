"""One line per connection that ended, with Istio's fields (src/proxy/metrics.rs)."""

from __future__ import annotations

import logging

from mesh.model.state import MeshState
from mesh.runtime import logs
from ztunnel.agent.telemetry import ends, log_fields
from ztunnel.feed import Connection

TARGET = "access"


class AccessLog:
    """The log behind it is bounded and never waits (mesh.runtime.lines)."""

    def __init__(self) -> None:
        self._log = logging.getLogger(TARGET)

    def write(self, connection: Connection, state: MeshState) -> None:
        level, text = _kind(connection)
        if self._log.isEnabledFor(level):
            fields = log_fields(connection, ends(connection, state))
            self._log.log(level, text, extra={logs.FIELDS: fields})


def _kind(connection: Connection) -> tuple[int, str]:
    if not connection.opened:
        return logging.WARNING, "connection failed"
    return (logging.ERROR if connection.error else logging.INFO), "connection complete"
