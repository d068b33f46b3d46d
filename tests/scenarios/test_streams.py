"""What flows through a connection arrives whole, in either direction, whatever its rhythm."""

from __future__ import annotations

import pytest

from tests.scenarios.home import Home
from tests.scenarios.programs import server

pytestmark = pytest.mark.root


def test_server_speaks_first(home: Home) -> None:
    answer = home.client("meshed/client", "greeting", "far.meshed", server.GREETING)
    assert answer == {"first": "220 welcome", "then": "you said thanks"}


@pytest.mark.parametrize(("habit", "port"), [("download", server.SOURCE), ("upload", server.SINK)])
def test_bulk(home: Home, habit: str, port: int) -> None:
    """Digests are taken at both ends; the upload is answered after the client's FIN, over the half that is open."""
    assert home.client("meshed/client", habit, "far.meshed", port, home.bulk) == {"same": True, "size": home.bulk}


def test_two_thousand_connections_at_once(home: Home) -> None:
    answer = home.client("meshed/client", "many", "far.meshed", server.ECHO, 2000)
    assert answer == {"answered": 2000, "wrong": []}


def test_a_slow_reader_delays_nobody(home: Home) -> None:
    slow = home.start("meshed/client", "slow", "far.meshed", server.SOURCE)
    size = 64 << 20
    assert home.client("meshed/client", "download", "far.meshed", server.SOURCE, size)["same"]
    assert home.client("meshed/client", "churn", "far.meshed", server.ECHO, 200) == {"done": True}
    assert slow.finish()["read"] >= 1


def test_a_reset_stays_a_reset(home: Home) -> None:
    assert home.client("meshed/client", "reset", "far.meshed", server.RESET) == {"ended": "reset"}
