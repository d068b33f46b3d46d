"""Lists in pages, so that neither side ever holds ten thousand pods as one text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.errors import Gone, Refused

PAGE = 500  # as client-go's


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str
    next_page: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[dict[str, Any]] | None = None


msgspec.json.Decoder(_Page)  # msgspec's first look at a type is not thread-safe


def list_pages(server: ApiServer, path: str, query: dict[str, str], take: Callable[[list[Any]], object]) -> str:
    """Hands each page to `take`; returns the resourceVersion that the list shows. After Gone, which can come between
    two pages, objects may be handed on a second time. Raises StoreError."""
    ask = query | {"limit": str(PAGE)}
    while True:
        try:
            page = msgspec.convert(server.get(path, ask), _Page)
        except Gone:
            if "continue" not in ask:
                raise
            ask = dict(query)  # paging took longer than the server keeps history: all at once, then
            continue
        except msgspec.ValidationError as error:
            raise Refused(f"{server.host}: GET {path}: the answer is no list: {error}") from error
        take(page.items or [])
        if not page.metadata.next_page:
            return page.metadata.resource_version
        ask["continue"] = page.metadata.next_page
