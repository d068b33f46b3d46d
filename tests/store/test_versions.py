"""A kind that a cluster has in another version, or not yet: a real API server and a CustomResourceDefinition."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.store.interface import Change, Key
from controller.store.kinds import TLS_ROUTE
from controller.store.kubernetes import KubernetesStore
from tests.store.apiserver import Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATIENCE = 60.0
GROUP, PLURAL = TLS_ROUTE.group, TLS_ROUTE.plural
KEY = Key("TLSRoute", "default", "web")


def definition(version: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": "TLSRoute", "plural": PLURAL, "singular": "tlsroute", "listKind": "TLSRouteList"},
            "versions": [{**served, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_a_kind_that_appears_later_in_an_older_version(api_server: Server) -> None:
    api = api_server.api()
    store = KubernetesStore(api_server.api())
    obj = {"apiVersion": f"{GROUP}/v1alpha2", "kind": "TLSRoute", "metadata": {"name": "web"}, "spec": {"a": 1}}

    async def scenario() -> None:
        watch = store.watch((TLS_ROUTE,))
        async with asyncio.timeout(PATIENCE):
            assert (await anext(watch)).change is Change.SYNCED, "a cluster without it is no reason to wait"
            assert await store.problems() == ()
            api.create(DEFINITIONS, definition("v1alpha2"))
            event = asyncio.create_task(anext(watch))
            while True:
                try:
                    await store.apply(obj)
                    break
                except Exception:  # until the definition is served
                    await asyncio.sleep(0.2)
            told = await event
            assert (told.change, told.key) == (Change.APPLIED, KEY)
            await store.change_status(KEY, lambda each: each.update(status={"parents": []}))
            assert (await store.get(TLS_ROUTE, "web", "default"))["status"] == {"parents": []}
            assert [each["metadata"]["name"] for each in await store.list(TLS_ROUTE)] == ["web"]
            await store.delete(KEY)
            while told.change is not Change.DELETED:
                told = await anext(watch)
        await watch.aclose()  # type: ignore[attr-defined]

    try:
        asyncio.run(scenario())
    finally:
        api.delete(f"{DEFINITIONS}/{PLURAL}.{GROUP}")
