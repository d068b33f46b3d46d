"""A waypoint as its Gateway, its pod and the people who look at the objects see the controller: a real process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from controller.authority.authentication import PodIdentity
from controller.authority.tokens import KEY_FILE, issue_pod_token
from controller.store import kinds
from controller.store.interface import Kind, NotFound
from mesh.model.routing import ServiceRouting
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.routing import decode_routing
from mesh.wire.services import DELTA_PATH, ROUTING_TYPE
from tests.compile.gateway_objects import backend, gateway, route
from tests.compile.objects import namespace, pod, service
from tests.controller.process import PATIENCE, Controller, controller, run

USING = {"labels": {"istio.io/use-waypoint": "gate"}}
OF_GATE = {"labels": {"gateway.networking.k8s.io/gateway-name": "gate"}}
HTTP = [{"name": "http", "port": 80}]
TO_NOTHING = route(rules=[{"backendRefs": [backend("missing", 80)]}])


async def until(found: Controller, kind: Kind, name: str, true: Callable[[Any], object]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                obj = await found.store.get(kind, name, "shop")
                if true(obj):
                    return obj
            except NotFound:
                pass
            await asyncio.sleep(0.05)


def condition(obj: Any, type_: str) -> str:
    """ "Status Reason", "" when there is none of this type."""
    status = obj.get("status") or {}
    parents = [each["conditions"] for each in status.get("parents", ())]
    conditions = [*status.get("conditions", ()), *(each for of_one in parents for each in of_one)]
    return next((f"{each['status']} {each['reason']}" for each in conditions if each["type"] == type_), "")


async def told(channel: grpc.aio.Channel, token: str, true: Callable[[dict[str, Any]], object]) -> None:
    """A waypoint's subscription, until what it has been told is as wanted."""
    method = channel.stream_stream(
        DELTA_PATH,
        request_serializer=DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=DeltaDiscoveryResponse.FromString,
    )
    call: Any = method(metadata=(("authorization", f"Bearer {token}"),))  # type: ignore[call-arg]
    known: dict[str, Any] = {}
    await call.write(DeltaDiscoveryRequest(type_url=ROUTING_TYPE))
    async with asyncio.timeout(PATIENCE):
        while not true(known):
            response = await call.read()
            assert isinstance(response, DeltaDiscoveryResponse), await call.details()
            for name in response.removed_resources:
                del known[name]
            known.update((each.name, decode_routing(each.name, each.resource.value)) for each in response.resources)
            await call.write(DeltaDiscoveryRequest(type_url=ROUTING_TYPE, response_nonce=response.nonce))
    call.cancel()


def test_from_a_gateway_to_a_waypoint_that_follows_routes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found, found.channel() as channel:
            web = service("web", metadata=USING, ports=HTTP)
            for obj in (namespace(), gateway(), web, TO_NOTHING):
                await found.store.apply(obj)
            await until(found, kinds.GATEWAY, "gate", lambda obj: condition(obj, "Programmed") == "False Pending")
            made = await until(found, kinds.DEPLOYMENT, "gate", lambda obj: obj)
            bound = "istio.io/WaypointBound"
            await until(found, kinds.SERVICE, "web", lambda obj: condition(obj, bound) == "False WaypointIsNotReady")
            broken = await until(found, kinds.HTTP_ROUTE, "route", lambda obj: condition(obj, "Accepted"))
            assert condition(broken, "ResolvedRefs") == "False BackendNotFound"

            mine = pod("gate-1", "10.1.0.9", account=made["spec"]["template"]["spec"]["serviceAccountName"], **OF_GATE)
            await found.store.apply(mine)
            await found.store.change_status(kinds.key_of(mine), lambda obj: obj.update(status=mine["status"]))
            await until(found, kinds.GATEWAY, "gate", lambda obj: condition(obj, "Programmed").startswith("True"))
            await until(found, kinds.SERVICE, "web", lambda obj: condition(obj, bound) == "True WaypointAccepted")

            uid = (await found.store.get(kinds.POD, "gate-1", "shop"))["metadata"]["uid"]
            token = issue_pod_token(found.state / KEY_FILE, PodIdentity("shop", "gate", "gate-1", uid), 600)
            name = "service//shop/gate//shop/web.shop.svc.cluster.local"

            def error(known: dict[str, Any]) -> str | None:
                routing = known.get(name)
                assert routing is None or isinstance(routing, ServiceRouting)
                return routing.ports[0].routes[0].http[0].backends[0].error if routing is not None else None  # type: ignore[index]

            await told(channel, token, lambda known: error(known) == "there is no Service shop/missing")
            await found.store.apply(service("missing", ports=HTTP))
            await told(channel, token, lambda known: error(known) == "")
            await until(found, kinds.HTTP_ROUTE, "route", lambda obj: condition(obj, "ResolvedRefs").startswith("True"))

    run(scenario())
