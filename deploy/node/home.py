"""A node of Kubernetes: the node agent with all that it needs there. Whatever ends it, captured pods stay captured."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from controller.store import kinds
from controller.store.interface import Store
from deploy.mirror import Mirror
from deploy.node import pods
from deploy.node.admission import AdmissionServer, Refused, Request
from deploy.node.agent import NodeAgent
from deploy.node.enrolled_file import EnrolledFile, enrolled_namespaces
from deploy.node.exempt import Exemption, NotExempt
from deploy.node.gate import Gate
from deploy.node.networks import PodNetworks
from deploy.node.own_labels import OwnLabels
from deploy.node.repair import Repair
from deploy.node.serving import Figures, Server
from deploy.node.settings import LONGEST_ADMISSION, Settings
from deploy.node.zds import NotServed
from ebpf import cgroups, loader
from ebpf.attachment import idle_hooks
from ebpf.netns import own_cookie
from ebpf.node import Capture
from ebpf.pins import Pins
from mesh.runtime.readiness import Readiness

log = logging.getLogger("node")

WATCHED = (kinds.NAMESPACE, kinds.POD)
PROGRAMS = "programs"  # a condition of readiness
LONGEST_WITHDRAWAL = 60.0  # seconds until every pod has left: each needs a word to the API server


class Home:
    """One node."""

    def __init__(self, settings: Settings, store: Store, labelled: Store, capture: Capture) -> None:
        """`store` has the pods of this node, `labelled` those of the cluster that have a label of their own.

        Raises NoCgroup2, NoKubepods, OSError."""
        self._settings, self._capture = settings, capture
        kubepods = settings.kubepods or cgroups.kubepods()
        log.info("pods are those below %s", kubepods)
        capture.exempt_node(own_cookie())
        self._exemption = Exemption(capture, cgroups.cgroup2_root())
        self._networks = PodNetworks(kubepods)
        self._mirror = Mirror(store, WATCHED)
        self._agent = NodeAgent(
            settings.node,
            store,
            self._mirror,
            self._networks,
            capture,
            settings.zds_socket,
            excluded=settings.excluded,
            welcome=self._welcome,
        )
        self._gate = Gate(
            settings.node,
            store,
            self._mirror,
            self._networks,
            self._agent,
            settings.excluded,
            settings.host_root,
            LONGEST_ADMISSION,
        )
        self._repair = Repair(
            settings.node, store, self._mirror, self._networks, self._agent, self._gate, self._check_programs
        )
        self._admission = AdmissionServer(
            settings.cni_socket, {"ADD": self._gate.add, "DEL": self._gate.delete, "WITHDRAW": self._withdraw}
        )
        self._file = EnrolledFile(settings.enrolled_namespaces)
        self._own_labels = OwnLabels(labelled, settings.excluded, self._file.own_label(), self._write_enrolled)
        self._readiness = Readiness(objects="the API server has not told of this node's pods yet")
        self._withdrawn = False

    async def run(self) -> None:
        """Until cancelled. Raises PortTaken, OSError."""
        agent = self._agent
        figures = Figures(agent.figures, agent.ztunnels, self._admission.answered, lambda: agent.recaptured)
        server = Server(self._settings.address, self._settings.port, self._readiness, figures)
        await server.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._mirror.run())
                await self._mirror.synced.wait()
                self._refresh()
                tasks.create_task(self._follow())
                tasks.create_task(self._agent.run())
                tasks.create_task(self._admission.serve())
                tasks.create_task(self._repair.run())
                tasks.create_task(self._own_labels.run())
                self._readiness.met("objects")
                log.info("node %s is ready", self._settings.node)
        finally:
            await server.stop()
            if self._withdrawn:
                remove_sockets(self._settings)

    async def _follow(self) -> None:
        changed = self._mirror.listen()
        while True:
            await changed.wait()
            changed.clear()
            self._refresh()

    def _refresh(self) -> None:
        """What is derived from the objects besides enrolment itself."""
        own = [pod for pod in self._mirror.of("Pod") if pod["spec"].get("nodeName") == self._settings.node]
        self._networks.static = pods.static_uids(own, self._settings.node)
        self._write_enrolled()

    def _write_enrolled(self) -> None:
        if not self._withdrawn:
            namespaces, own_label = self._mirror.of("Namespace"), self._own_labels.namespaces
            enrolled = enrolled_namespaces(namespaces, own_label, self._agent.decision)
            own_label -= self._file.written.own_label - enrolled.own_label  # their namespaces have gone
            self._file.write(enrolled)

    def _welcome(self, process: int) -> None:
        try:
            self._exemption.admit(process)
        except NotExempt as error:
            raise NotServed(str(error)) from error

    def _check_programs(self) -> None:
        """Raises OSError."""
        idle = () if self._withdrawn else idle_hooks(self._settings.pins)
        if not idle:
            self._readiness.met(PROGRAMS)
        elif PROGRAMS not in self._readiness.waiting:
            reason = f"nothing is captured: no program is attached at {', '.join(idle)}; delete this pod to load them"
            self._readiness.wait_for(PROGRAMS, reason)
            log.error("%s", reason)

    async def _withdraw(self, request: Request) -> None:
        """All pods leave the mesh, then the capture ends; this process stays, so that nothing starts it anew."""
        self._withdrawn = True
        self._file.remove()
        self._readiness.wait_for("withdrawn", "the node has been taken out of the mesh")
        done = True
        try:
            async with asyncio.timeout(LONGEST_WITHDRAWAL):
                await self._agent.withdraw_all()
        except TimeoutError:
            done = False
        log.info("%s", unload(self._settings.pins))
        if not done:
            late = f"not all pods could be told within {LONGEST_WITHDRAWAL:g} s that they have left the mesh"
            raise Refused(f"the capture has ended, but {late}: is the API server away?")


def remove_sockets(settings: Settings) -> None:
    for path in (settings.cni_socket, settings.zds_socket):
        path.unlink(missing_ok=True)


def unload(pins: Path) -> str:
    """Ends the capture at once, for all pods. Raises Refused."""
    try:
        return loader.unload(Pins(pins))
    except (OSError, ValueError) as error:
        raise Refused(f"the eBPF programs at {pins} cannot be removed: {error}") from error
