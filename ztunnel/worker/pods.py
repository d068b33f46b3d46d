"""The enrolled pods of this worker: who they are, their network namespace, their listeners.

The namespace says which pod a connection belongs to; nothing that the pod sends can change that.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mesh.model.address import Ip, is_v6
from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.workload import WorkloadUid
from ztunnel.feed import PodAdded, SocketRole
from ztunnel.worker.sockets import Namespace

if TYPE_CHECKING:
    from ztunnel.worker.dns import DnsProxy


@dataclass(slots=True, eq=False)
class Pod:
    """One enrolment of a pod; enrolling it again makes another one."""

    uid: WorkloadUid
    namespace: str
    service_account: str
    addresses: tuple[Ip, ...]
    network_namespace: Namespace
    sockets: dict[SocketRole, list[socket.socket]] = field(default_factory=dict)
    dns: DnsProxy | None = None

    @property
    def cookie(self) -> int:
        return self.network_namespace.cookie

    def identity(self, mesh: MeshState) -> SpiffeId | None:
        """The mesh knows the trust domain, the node agent the service account. None while the mesh does not know it."""
        workload = mesh.workload(self.uid)
        if workload is None:
            return None
        return SpiffeId(workload.trust_domain, self.namespace, self.service_account)

    def address_towards(self, destination: Ip) -> Ip | None:
        """Where a connection of the pod to `destination` comes from: its first address of that family."""
        return next((ip for ip in self.addresses if is_v6(ip) == is_v6(destination)), None)

    def close(self) -> None:
        """Gives up what it owns."""
        for sockets in self.sockets.values():
            for sock in sockets:
                sock.close()
        self.network_namespace.close()


def adopt(message: PodAdded, descriptors: Sequence[int]) -> Pod:
    """The pod with its descriptors, which it owns from now on. Raises OSError when one is not what it should be."""
    network_namespace = Namespace(descriptors[0], message.netns_cookie)
    pod = Pod(
        message.uid,
        message.namespace,
        message.service_account,
        message.addresses,
        network_namespace,
    )
    left = list(descriptors[1:])
    try:
        for role in message.sockets:
            sock = socket.socket(fileno=left[0])
            del left[0]
            pod.sockets.setdefault(role, []).append(sock)
            sock.setblocking(False)
    except OSError:
        for descriptor in left:
            os.close(descriptor)
        pod.close()
        raise
    return pod
