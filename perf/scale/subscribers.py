"""Many ztunnels of one controller: `python -m perf.scale.subscribers`, told by one line of JSON on standard input.

They are a process of their own, so that what they cost is not the controller's. Each says in a line of JSON when it got
what; times are of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

import grpc
import grpc.aio

from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, DELTA_PATH, MAX_MESSAGE_BYTES

_SAID_BY_NAME = 512  # resources of one response; of the first ones the number is enough


@dataclass(frozen=True, slots=True)
class Told:
    """One response of addresses, as it reached a ztunnel."""

    who: int
    at: float
    count: int
    size: int  # bytes
    names: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """`roots` is PEM; one ztunnel for each token."""

    port: int
    name: str
    roots: str
    tokens: tuple[str, ...]


async def subscribe(task: Task) -> None:
    async with asyncio.TaskGroup() as group:
        for number, token in enumerate(task.tokens):
            group.create_task(_follow(task, number, token))


async def _follow(task: Task, number: int, token: str) -> None:
    """A connection each, as ztunnels of different nodes have; does not end."""
    options = [
        ("grpc.ssl_target_name_override", task.name),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),  # else all would share one
    ]
    credentials = grpc.ssl_channel_credentials(task.roots.encode())
    async with grpc.aio.secure_channel(f"127.0.0.1:{task.port}", credentials, options=options) as channel:
        method = channel.stream_stream(
            DELTA_PATH,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=_dated,
        )
        # The stubs do not know that requests may also be written one by one.
        call = method(metadata=(("authorization", f"Bearer {token}"),))  # type: ignore[call-arg]
        for type_url in (ADDRESS_TYPE, AUTHORIZATION_TYPE):
            await call.write(DeltaDiscoveryRequest(type_url=type_url))
        async for at, size, response in call:
            await call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
            if response.type_url == ADDRESS_TYPE:
                _say(_told(number, at, size, response))


def _dated(data: bytes) -> tuple[float, int, DeltaDiscoveryResponse]:
    """When it came, and how large it was on the wire."""
    return time.monotonic(), len(data), DeltaDiscoveryResponse.FromString(data)


def _told(number: int, at: float, size: int, response: DeltaDiscoveryResponse) -> Told:
    count = len(response.resources)
    names = tuple(each.name for each in response.resources) if count <= _SAID_BY_NAME else ()
    return Told(number, at, count, size, names, tuple(response.removed_resources))


def _say(told: Told) -> None:
    sys.stdout.write(json.dumps(asdict(told)) + "\n")
    sys.stdout.flush()


def main() -> None:
    asyncio.run(subscribe(Task(**json.loads(sys.stdin.readline()))))


if __name__ == "__main__":
    main()
