"""The controller on a real API server: what ztunnels get, what people see, and what several replicas do."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from controller.store.interface import Key
from controller.store.kinds import POD as _POD
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from mesh.model.workload import Workload
from tests.controller.cluster import ClusterController, replicas
from tests.controller.process import PATIENCE, ROOT, Ztunnel, run
from tests.store.apiserver import Server
from tests.store.homes import KubernetesHome, pod
from tests.store.system import System

_numbers = itertools.count(1)


class Place:
    """A namespace with a service "web" of one pod on node1."""

    def __init__(self, server: Server) -> None:
        home = KubernetesHome(server)
        self.api: ApiServer = home.api
        self.namespace = home.namespace
        self.identity = f"spiffe://cluster.local/ns/{self.namespace}/sa/web"
        self.uid = f"Kubernetes//Pod/{self.namespace}/web-1"
        self.web = Key("Pod", self.namespace, "web-1")
        number = next(_numbers)  # an address of its own: the older of two pods with one would keep it
        self.ip, self.other_ip = f"10.1.{number}.1", f"10.1.{number}.2"

    async def fill(self, found: ClusterController) -> None:
        store, metadata = found.store, {"namespace": self.namespace}
        await store.apply(pod(self.namespace, "web-1", nodeName="node1", serviceAccountName="web"))
        await store.change_status(self.web, lambda obj: obj["status"].update(running(self.ip)))
        service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        await store.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata | {"name": "web"}, "spec": service}
        )
        uid = (await self.get(found))["metadata"]["uid"]
        target = {"kind": "Pod", "namespace": self.namespace, "name": "web-1", "uid": uid}
        await store.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata | {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [self.ip], "targetRef": target, "nodeName": "node1"}],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }
        )

    async def get(self, found: ClusterController) -> Any:
        return await found.system.api.call(found.system.api.get, paths.of(_POD, "web-1", self.namespace))


def running(ip: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    return {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}


def label(**labels: str) -> Any:
    return lambda obj: obj["metadata"].setdefault("labels", {}).update(labels)


def mode(value: str) -> Any:
    return lambda obj: obj["metadata"].setdefault("labels", {}).update({"istio.io/dataplane-mode": value})


async def refused(ztunnel: Ztunnel, identity: str) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ztunnel.certificate(identity)
    return error.value.code()


def test_a_ztunnel_gets_the_mesh_and_certificates_of_its_own_pods_only(api_server: Server, tmp_path: Path) -> None:
    system, place = System(api_server), Place(api_server)

    async def scenario() -> None:
        async with replicas(system, tmp_path) as (found,), found.channel() as channel:
            ztunnel = Ztunnel(channel, found.node_token("node1"))
            await ztunnel.subscribe()
            await place.fill(found)
            await ztunnel.until(lambda mesh: place.uid in mesh and mesh[place.uid].services)  # type: ignore[union-attr]
            assert f"{place.namespace}/web.{place.namespace}.svc.cluster.local" in ztunnel.mesh
            leaf = await ztunnel.certificate(place.identity)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [place.identity]
            elsewhere = Ztunnel(channel, found.node_token("node2"))
            assert await refused(elsewhere, place.identity) is grpc.StatusCode.PERMISSION_DENIED
            nobody = Ztunnel(channel, system.token(audience="istio-ca"))
            assert await refused(nobody, place.identity) is grpc.StatusCode.UNAUTHENTICATED
            await found.store.delete(place.web)
            system.remove(place.web)
            await ztunnel.until(lambda mesh: place.uid not in mesh)
            assert await refused(ztunnel, place.identity) is grpc.StatusCode.PERMISSION_DENIED

    run(scenario())


def test_replicas_have_one_root_and_all_serve_while_one_writes(api_server: Server, tmp_path: Path) -> None:
    system, place = System(api_server), Place(api_server)

    async def accepted(found: ClusterController, status: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                conditions = (await place.get(found)).get("status", {}).get("conditions", [])
                if any(each["type"] == "ambit.io/Accepted" and each["status"] == status for each in conditions):
                    return
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        async with replicas(system, tmp_path, 3) as found:
            await place.fill(found[0])
            for each in found:
                async with each.channel() as channel:
                    ztunnel = Ztunnel(channel, each.node_token("node1"))
                    await ztunnel.subscribe()
                    await ztunnel.until(lambda mesh: place.uid in mesh)
                    await ztunnel.certificate(place.identity)
            await found[0].store.change(place.web, mode("ambitious"))
            await accepted(found[0], "False")
            lease = system.api.get(
                f"/apis/coordination.k8s.io/v1/namespaces/{system.namespace}/leases/ambit-controller"
            )
            assert lease["spec"]["holderIdentity"]
            writers = [number for number, (status, errors) in enumerate([await each.stop() for each in found[:2]])]
            assert writers == [0, 1]
            await found[2].store.change(place.web, mode("ambient"))
            await accepted(found[2], "True")

    run(scenario())


def test_an_api_server_that_goes_away_takes_nothing_with_it(tmp_path: Path, api_server: Server) -> None:
    system, place = System(api_server), Place(api_server)

    async def scenario() -> None:
        async with replicas(system, tmp_path) as (found,), found.channel() as channel:
            await place.fill(found)
            ztunnel = Ztunnel(channel, found.node_token("node1"))
            await ztunnel.subscribe()
            await ztunnel.until(lambda mesh: place.uid in mesh)
            await ztunnel.certificate(place.identity)
            await asyncio.to_thread(api_server.stop)
            try:
                await found.status_until(lambda status: status["files"])  # it has noticed
                assert (await found.get("/ready"))[0] == 200
                assert (await found.status())["published"]["workloads"] >= 1
                await ztunnel.certificate(place.identity)  # the review of a minute ago still holds
                stranger = Ztunnel(channel, "somebody.elses.token")
                assert await refused(stranger, place.identity) is grpc.StatusCode.UNAVAILABLE
            finally:
                await asyncio.to_thread(api_server.start)
            await found.store.change_status(place.web, lambda obj: obj["status"].update(running(place.other_ip)))
            await ztunnel.until(lambda mesh: _address(mesh[place.uid]) == place.other_ip)
            await found.status_until(lambda status: not status["files"])
            assert found.process is not None
            assert found.process.returncode is None

    run(scenario())


@asynccontextmanager
async def starting(found: ClusterController) -> AsyncIterator[asyncio.StreamReader]:
    """Not ready yet; gives what it says meanwhile."""
    pipe = asyncio.subprocess.PIPE
    found.process = await asyncio.create_subprocess_exec(*found.command(), cwd=ROOT, stdout=pipe, stderr=pipe)
    assert found.process.stderr is not None
    try:
        yield found.process.stderr
    finally:
        await found.stop()


def test_it_waits_for_an_api_server_that_is_not_there_yet(api_server: Server, tmp_path: Path) -> None:
    system = System(api_server)

    async def scenario() -> None:
        found = ClusterController(system, tmp_path)
        await asyncio.to_thread(api_server.stop)
        try:
            async with starting(found) as errors:
                assert b"cannot be reached" in await errors.readline()
                await asyncio.to_thread(api_server.start)
                assert found.process is not None
                assert found.process.stdout is not None
                assert b"controller: ready" in await found.process.stdout.readline()
                assert (await found.stop())[0] == 0
        finally:
            await asyncio.to_thread(api_server.start)

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped_while_it_waits(api_server: Server, tmp_path: Path, number: int) -> None:
    system = System(api_server)

    async def scenario() -> None:
        found = ClusterController(system, tmp_path, port=1)
        async with starting(found) as errors:
            await errors.readline()
            status, rest = await found.stop(number)
            assert status == 0
            assert "Traceback" not in rest

    run(scenario())


def test_it_says_what_it_may_not_do(api_server: Server, tmp_path: Path) -> None:
    system = System(api_server)

    async def scenario() -> None:
        found = ClusterController(system, tmp_path)
        found._kubeconfig = api_server.kubeconfig(system.token("other"))
        async with starting(found) as errors:
            assert b'secrets "ambit-ca" is forbidden' in await errors.readline()

    run(scenario())


def _address(found: Any) -> str:
    assert isinstance(found, Workload)
    return str(found.addresses[0])
