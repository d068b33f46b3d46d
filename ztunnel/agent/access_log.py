"""One line per connection that ended, with Istio's fields (src/proxy/metrics.rs)."""

from __future__ import annotations

import logging

from mesh.runtime.logs import write_line
from mesh.runtime.style import Style
from ztunnel.agent.telemetry import Names, log_client, log_outcome
from ztunnel.feed import Connection

TARGET = "access"


class AccessLog:
    """The log behind it is bounded and never waits (mesh.runtime.lines)."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._log = logging.getLogger(TARGET)

    def write(self, connection: Connection, names: Names) -> None:
        level, text = _kind(connection)
        if self._log.isEnabledFor(level):
            write_line(self._style, TARGET, level, text, self.parts(connection, names))

    def parts(self, connection: Connection, names: Names) -> list[str]:
        render = self._style.pairs
        return [render(log_client(connection)), names.log, render(log_outcome(connection))]


def _kind(connection: Connection) -> tuple[int, str]:
    if not connection.opened:
        return logging.WARNING, "connection failed"
    return (logging.ERROR if connection.error else logging.INFO), "connection complete"
