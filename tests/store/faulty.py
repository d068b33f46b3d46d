"""An API server of which every answer is decided by the test: for faults that a real one has only now and then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import ApiClient, Configuration

from controller.store.kubernetes.api import ApiServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        self.server.answer_to(split.path, query)(self)

    def send_body(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FaultyServer(ThreadingHTTPServer):
    """`lists` and `watches` are answered in turn: the last list again and again, and watches after the last by silence.

    `asked` are the queries so far.
    """

    daemon_threads = True
    lists: list[Answer]
    watches: list[Answer]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def answer_to(self, path: str, query: dict[str, str]) -> Answer:
        with self._lock:
            self.asked.append(query)
            if "watch" in query:
                return self.watches.pop(0) if self.watches else silence
            return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]

    @property
    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query in self.asked if "watch" in query]

    def handle_error(self, *_: object) -> None:
        """Clients hang up as they like."""


@contextmanager
def faulty(lists: list[Answer], watches: list[Answer]) -> Iterator[tuple[FaultyServer, ApiServer]]:
    server = FaultyServer()
    server.lists, server.watches = list(lists), list(watches)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield server, ApiServer(ApiClient(configuration))
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


# --- objects and answers


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    """As in a list: without apiVersion and kind, with managedFields."""
    metadata = {"name": name, "namespace": "shop", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata | {"managedFields": [{"manager": "kubelet"}]}, "spec": {"nodeName": None}}


def page(*items: dict[str, Any], version: int = 10, more: str = "") -> Answer:
    metadata = {"resourceVersion": str(version), "continue": more}
    body = json.dumps({"kind": "PodList", "metadata": metadata, "items": list(items)}).encode()
    return lambda handler: handler.send_body(200, body)


def status(code: int, reason: str = "", message: str = "no") -> Answer:
    body = json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message}).encode()
    return lambda handler: handler.send_body(code, body)


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


GONE = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})


def ending(*chunks: bytes) -> Answer:
    """A watch that the server ends as it should."""

    def answer(handler: Handler) -> None:
        handler.begin_stream()
        for chunk in chunks:
            handler.send_chunk(chunk)
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def breaking(*chunks: bytes) -> Answer:
    """A watch whose connection breaks."""

    def answer(handler: Handler) -> None:
        handler.begin_stream()
        for chunk in chunks:
            handler.send_chunk(chunk)
        handler.close_connection = True
        handler.connection.shutdown(2)

    return answer


def staying(*chunks: bytes) -> Answer:
    """A watch that says this and nothing more."""

    def answer(handler: Handler) -> None:
        handler.begin_stream()
        for chunk in chunks:
            handler.send_chunk(chunk)
        handler.server.closing.wait()

    return answer


silence = staying()


def hang_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(2)
