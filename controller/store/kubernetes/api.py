"""Requests to an API server: paths and JSON in, plain values out.

The `kubernetes` package knows how to reach it and who we are (kubeconfig, service account, renewed tokens). Its model
objects are left alone: for ten thousand pods they cost more than all the rest.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes.client import ApiClient

from controller.store.kubernetes.errors import Refused, Unreachable, of_answer

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"  # RFC 7386
APPLY_PATCH = "application/apply-patch+yaml"  # server-side apply; JSON is YAML

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 90.0  # of a watch: an API server sends bookmarks every minute
_READ_BYTES = 1 << 18
_MAX_LINE = 32 << 20  # etcd's largest object is 1.5 MiB; what is longer is no event
_THREADS = 8  # requests of one process at once

# A server that vanished without a word is noticed after 30 s, also by a watch that has nothing to send.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]

Answer = TypeVar("Answer")
Query = Mapping[str, str]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ApiServer:
    """Blocking; safe for several threads. Every request raises the StoreErrors of `errors`."""

    def __init__(self, client: ApiClient) -> None:
        self._configuration = client.configuration
        self._pool: urllib3.PoolManager = client.rest_client.pool_manager
        self._agent = client.default_headers.get("User-Agent", "ambit")
        self._threads = ThreadPoolExecutor(_THREADS, "api-server")

    @property
    def host(self) -> str:
        return str(self._configuration.host)

    async def call(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Blocking work that makes requests, on a thread kept for that: others' threads never wait for the server."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def get(self, path: str, query: Query | None = None) -> Any:
        return self._request("GET", path, query)

    def create(self, path: str, obj: Any) -> Any:
        """Raises AlreadyExists."""
        return self._request("POST", path, body=obj)

    def replace(self, path: str, obj: Any) -> Any:
        """Raises Conflict when the object's resourceVersion is not the present one."""
        return self._request("PUT", path, body=obj)

    def patch(self, path: str, patch: Any, kind: str = MERGE_PATCH, query: Query | None = None) -> Any:
        return self._request("PATCH", path, query, patch, kind)

    def delete(self, path: str) -> Any:
        return self._request("DELETE", path)

    def stream(self, path: str, query: Query) -> Stream:
        """An answer without end, line by line."""
        response = self._open("GET", path, query, None, JSON, SILENCE_SECONDS)
        return Stream(response, self.host)

    def _request(
        self, method: str, path: str, query: Query | None = None, body: Any = None, content_type: str = JSON
    ) -> Any:
        response = self._open(method, path, query, body, content_type, ANSWER_SECONDS)
        try:
            return _decode(response.data)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.host}: {method} {path}: the answer broke off: {_words(error)}") from error
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self.host}: {method} {path}: the answer is not JSON: {error}") from error
        finally:
            response.release_conn()

    def _open(
        self, method: str, path: str, query: Query | None, body: Any, content_type: str, silence: float
    ) -> urllib3.BaseHTTPResponse:
        what = f"{self.host}: {method} {path}"
        headers = {"Accept": JSON, "User-Agent": self._agent, **self._credentials()}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            response = self._pool.request(
                method,
                f"{self.host}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else _encode(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence),
                retries=False,  # those who ask know what may be tried again, and when
                preload_content=False,
            )
            if not 200 <= response.status < 300:
                with response:
                    raise of_answer(response.status, response.data, what)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{self.host} cannot be reached: {_words(error)}") from error
        return response

    def _credentials(self) -> dict[str, str]:
        """Asked for with every request: tokens are renewed."""
        settings: Mapping[str, Any] = self._configuration.auth_settings()
        return {
            each["key"]: each["value"] for each in settings.values() if each["in"] == "header" and each.get("value")
        }


class Stream:
    """Closed by leaving its `with`; `shutdown` ends it from another thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse, host: str) -> None:
        self._response = response
        self._host = host

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def shutdown(self) -> None:
        """Whoever reads sees the end."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError):
            pass  # it has ended by itself

    def batches(self) -> Iterator[list[bytes]]:
        """The whole lines that have arrived, together. Silence and a broken connection are ends as any other: whoever
        wants more asks again. Raises Refused for a line that has no end."""
        rest = b""
        while piece := self._read():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _MAX_LINE:
                raise Refused(f"{self._host}: a line of more than {_MAX_LINE} bytes")
            if lines:
                yield lines

    def _read(self) -> bytes:
        try:
            return self._response.read1(_READ_BYTES)
        except (urllib3.exceptions.HTTPError, OSError, ValueError):  # ValueError: after `shutdown`
            return b""


def _words(error: BaseException) -> str:
    """What is wrong, without urllib3's objects in it."""
    cause = error.__cause__
    match error:
        case urllib3.exceptions.NewConnectionError() if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        case urllib3.exceptions.TimeoutError():
            return "it takes too long"
        case urllib3.exceptions.ProtocolError(args=(_, BaseException() as inner)):
            return _words(inner)
        case OSError(strerror=str(words)):
            return words
    return str(error) or type(error).__name__
