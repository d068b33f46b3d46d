"""The image `ambit/echo`: says who it is and whom it sees, over HTTP and over plain TCP. Standard library only.

HTTP on port 8080 (environment PORT): one line with this pod's name and the peer's address, then what was asked. With
`?to=URL` it asks that URL and hands on the answer, so that one request can walk through several pods. TCP on port 9090
(TCP_PORT): greets first, then sends back every line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

MAX_HEAD = 64 << 10
MAX_BODY = 1 << 20
PATIENCE = 10.0  # seconds for the URL of ?to=

NAME = os.environ.get("POD_NAME", socket.gethostname())
if "NODE_NAME" in os.environ:
    NAME += f" on {os.environ['NODE_NAME']}"


def peer(writer: asyncio.StreamWriter) -> str:
    host, port, *_ = writer.get_extra_info("peername")
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await serve_request(reader, writer):
            await writer.drain()
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def serve_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", 0))
    if not 0 <= length <= MAX_BODY:
        raise ValueError("the body is too large")
    body = await reader.readexactly(length)
    status, text = await answer(method, target, body, peer(writer))
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    content = text.encode()
    fields = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(content)}\r\n"
    fields += "" if keep else "Connection: close\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + content)
    return keep


async def answer(method: str, target: str, body: bytes, client: str) -> tuple[str, str]:
    """Status and text."""
    text = f"{NAME} sees {client}\n{method} {target}\n{body.decode(errors='replace')}"
    onward = parse_qs(urlsplit(target).query).get("to")
    if not onward:
        return "200 OK", text
    try:
        return "200 OK", text + await asyncio.to_thread(ask, onward[0])
    except (URLError, OSError, ValueError) as error:
        return "502 Bad Gateway", f"{text}{onward[0]}: {error}\n"


def ask(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http and https URLs are asked")
    with urlopen(url, timeout=PATIENCE) as response:
        return str(response.read(MAX_BODY).decode(errors="replace"))


async def serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(f"{NAME} sees {peer(writer)}\n".encode())
        while data := await reader.read(MAX_HEAD):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main() -> None:
    # The first process of a container ends by SIGTERM only if it says so.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit)
    http, tcp = int(os.environ.get("PORT", 8080)), int(os.environ.get("TCP_PORT", 9090))
    servers = [
        await asyncio.start_server(serve_http, sock=listener(http), limit=MAX_HEAD),
        await asyncio.start_server(serve_tcp, sock=listener(tcp), limit=MAX_HEAD),
    ]
    print(f"{NAME}: HTTP on port {http}, TCP on port {tcp}", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def listener(port: int) -> socket.socket:
    """For IPv4 and IPv6."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
