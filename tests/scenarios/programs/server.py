"""A server of many habits, one port each, over IPv4 and IPv6. Standard library only: it runs with the host's Python."""

import asyncio
import hashlib
import json
import socket
import struct
import sys

ECHO, GREETING, WHO, SOURCE, SINK, RESET, PRIVATE = 7000, 7001, 7002, 7003, 7004, 7005, 7006
CHUNK = bytes(range(256)) * 1024


async def echo(reader, writer):
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def greet(reader, writer):
    """The server speaks first, as SMTP and MySQL do."""
    writer.write(b"220 welcome\r\n")
    writer.write(b"you said " + await reader.readline())


async def who(reader, writer):
    """Whom the app sees: what accept() said (asyncio keeps it) and what getpeername() and getsockname() say now."""
    connection = writer.get_extra_info("socket")
    seen = {
        "accept": writer.get_extra_info("peername")[:2],
        "getpeername": connection.getpeername()[:2],
        "getsockname": connection.getsockname()[:2],
    }
    writer.write(json.dumps(seen).encode() + b"\n")


async def source(reader, writer):
    """Sends as many bytes as it is asked for, then their SHA-256 (64 hex digits)."""
    left, digest = int(await reader.readline()), hashlib.sha256()
    while left:
        piece = CHUNK[:left]
        digest.update(piece)
        writer.write(piece)
        await writer.drain()
        left -= len(piece)
    writer.write(digest.hexdigest().encode())


async def sink(reader, writer):
    """Reads until the client's FIN, and only then answers, on the half that is still open: count and SHA-256."""
    count, digest = 0, hashlib.sha256()
    while data := await reader.read(1 << 18):
        count += len(data)
        digest.update(data)
    writer.write(f"{count} {digest.hexdigest()}\n".encode())


async def reset(reader, writer):
    """Resets the connection once it has read a line."""
    await reader.readline()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def closing(habit):
    async def serve(reader, writer):
        try:
            await habit(reader, writer)
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    return serve


async def main():
    habits = {ECHO: echo, GREETING: greet, WHO: who, SOURCE: source, SINK: sink, RESET: reset}
    for port, habit in habits.items():
        await asyncio.start_server(closing(habit), ["0.0.0.0", "::"], port, backlog=4096)
    await asyncio.start_server(closing(echo), "127.0.0.1", PRIVATE)
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.platform == "linux":
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main())
