"""A plain TCP connection as a channel: to destinations that take no tunnels."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from mesh.model.address import SocketAddress
from waypoint.channel import NOBODY, Bytes, Channel, ChannelUser
from waypoint.tunnel.pool import CONNECT_TIMEOUT

UNREAD = 256 << 10  # bytes that a slow reader makes us hold before the peer has to wait


class TcpChannel(asyncio.Protocol):
    def __init__(self) -> None:
        self.user: ChannelUser = NOBODY
        self._transport: asyncio.Transport | None = None
        self._unread = 0
        self._paused = False
        self._over = False
        self._in_ended = self._out_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)

    @property
    def socket(self) -> socket.socket:
        """Of a connection that stands."""
        assert self._transport is not None
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    @property
    def congested(self) -> bool:
        return self._paused

    def write(self, data: Bytes) -> None:
        if self._transport is not None and not self._over:
            self._transport.write(bytes(data))

    def end(self) -> None:
        if self._transport is None or self._over or self._out_ended:
            return
        self._out_ended = True
        if self._in_ended or not self._transport.can_write_eof():  # TLS of Python's has no half-close
            self._close()
        else:
            self._transport.write_eof()

    def reset(self) -> None:
        self.user = NOBODY
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def acknowledge(self, size: int) -> None:
        before, self._unread = self._unread, self._unread - size
        if before >= UNREAD > self._unread and self._transport is not None and not self._over:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        if self._unread >= UNREAD and self._transport is not None:
            self._transport.pause_reading()
        self.user.received([memoryview(data)])

    def eof_received(self) -> bool:
        self._in_ended = True
        self.user.ended()
        if self._out_ended:
            self._close()
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        user, self.user = self.user, NOBODY
        user.lost(f"the destination's connection broke: {exc}" if exc else "the connection is closed")

    def _close(self) -> None:
        """Both directions have ended as they should; what is written still leaves."""
        self._over, self.user = True, NOBODY
        assert self._transport is not None
        self._transport.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.user.drained()


class TcpOpening:
    """As `tunnel.pool.Opening`, without a tunnel."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: SocketAddress,
        opened: Callable[[Channel], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._opened = opened
        self._failed = failed
        self._cancelled = False
        self._task = loop.create_task(self._dial())

    def cancel(self) -> None:
        self._cancelled = True
        self._task.cancel()

    async def _dial(self) -> None:
        address = self._address
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._loop.create_connection(lambda: _Dialled(self._stands), address.ip, address.port)
        except TimeoutError:
            self._failed(f"cannot connect to {address}: timed out")
        except OSError as error:
            self._failed(f"cannot connect to {address}: {error.strerror or error}")

    def _stands(self, channel: TcpChannel) -> None:
        if self._cancelled:
            channel.reset()
        else:
            self._opened(channel)


class _Dialled(TcpChannel):
    """Has its user before the first byte: a server may speak at once, and the task that dials comes later."""

    def __init__(self, stands: Callable[[TcpChannel], None]) -> None:
        super().__init__()
        self._stands = stands

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._stands(self)
