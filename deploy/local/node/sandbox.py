"""A pod's sandbox: its network namespace and addresses, the files that its containers see as /etc, its volumes.

Written to disk before it is made, so that a node process that starts again finds it, and `down` can remove it.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import cgroups, network
from deploy.local.addresses import DNS_V4, DNS_V6, NodeAddresses, Pair, pod_addresses
from deploy.local.node.containers import Surroundings
from deploy.local.paths import NAMED_NETNS, Instance, NodePaths
from mesh.model.address import Ip

CLUSTER_DOMAIN = "cluster.local"
RECORD = "sandbox.json"
_KINDS = {"emptyDir", "projected"}  # of volumes
NSCD = "/run/nscd"  # a cache daemon of the machine would answer names instead of the pod's resolver


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Of one pod. `place` is its number within the node's block of addresses."""

    uid: str
    namespace: str
    name: str
    place: int
    addresses: Pair
    netns: Path
    directory: Path

    @property
    def link(self) -> str:
        return network.pod_link(self.uid)


class Sandboxes:
    """Of the pods of one node."""

    def __init__(self, instance: Instance, node: NodeAddresses) -> None:
        self._instance, self._node = instance, node
        self._paths: NodePaths = instance.node(node.name)
        self._turn = threading.Lock()  # makers and removers are threads, and one may outlive who waited for it
        self._by_uid = {each.uid: each for each in _read_all(self._paths.sandboxes)}
        for each in list(self._by_uid.values()):
            if not network.is_complete(self._paths.netns, each.netns, each.link):  # a crash came half way
                self.remove(each.uid)
        self._last = max((sandbox.place for sandbox in self._by_uid.values()), default=1)

    def all(self) -> tuple[Sandbox, ...]:
        return tuple(self._by_uid.values())

    def netns(self, uid: str) -> Path | None:
        """Where the pod's network namespace is; None when it has none (any more)."""
        sandbox = self._by_uid.get(uid)
        return sandbox.netns if sandbox else None

    def get(self, uid: str) -> Sandbox | None:
        return self._by_uid.get(uid)

    def make(self, pod: Mapping[str, Any]) -> Sandbox:
        """The pod's sandbox, made if need be; blocks for some milliseconds. Raises ValueError: no address is free."""
        uid = pod["metadata"]["uid"]
        with self._turn:
            sandbox = self._by_uid.get(uid) or self._plan(pod)
            if uid not in self._by_uid:
                self._make(sandbox)
            _write_files(pod, sandbox)
            return sandbox

    def remove(self, uid: str) -> None:
        """Kills what still runs in it. Raises TimeoutError."""
        with self._turn:
            sandbox = self._by_uid.get(uid)
            if sandbox is None:
                return
            cgroups.remove(self._paths.pod_cgroup(uid))
            if sandbox.netns != self._paths.netns:
                network.remove_pod(self._paths.netns, sandbox.netns, sandbox.link)
            shutil.rmtree(sandbox.directory, ignore_errors=True)
            del self._by_uid[uid]

    def _make(self, sandbox: Sandbox) -> None:
        sandbox.directory.mkdir(parents=True, exist_ok=True)
        _write(sandbox)
        if sandbox.netns != self._paths.netns:
            network.add_pod(self._paths.netns, sandbox.netns, sandbox.link, sandbox.addresses, self._node.address)
        self._by_uid[sandbox.uid] = sandbox

    def surroundings(self, pod: Mapping[str, Any], sandbox: Sandbox) -> Surroundings:
        return surroundings(self._instance, self._node, pod, sandbox)

    def _plan(self, pod: Mapping[str, Any]) -> Sandbox:
        metadata = pod["metadata"]
        directory = self._paths.sandboxes / metadata["uid"]
        if pod["spec"].get("hostNetwork"):
            own = self._node.address, self._paths.netns
            return Sandbox(metadata["uid"], metadata["namespace"], metadata["name"], 0, *own, directory)
        used = {sandbox.place for sandbox in self._by_uid.values()}
        self._last, addresses = pod_addresses(self._node, used, self._last)
        return Sandbox(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            place=self._last,
            addresses=addresses,
            # The uid tells a pod from an earlier one of the same name that is still ending.
            netns=self._instance.netns(metadata["namespace"], metadata["name"], metadata["uid"][:4]),
            directory=directory,
        )


def surroundings(instance: Instance, node: NodeAddresses, pod: Mapping[str, Any], sandbox: Sandbox) -> Surroundings:
    """What all containers of the pod share."""
    files = ("resolv.conf", "hosts", "nsswitch.conf")
    return Surroundings(
        node=node.name,
        node_address=node.address,
        addresses=sandbox.addresses,
        hostname=hostname(pod),
        netns=sandbox.netns,
        cgroup=instance.node(node.name).pod_cgroup(sandbox.uid),
        binds=tuple((str(sandbox.directory / name), f"/etc/{name}") for name in files if Path("/etc", name).exists()),
        hidden=(str(instance.runtime), str(instance.state), str(NAMED_NETNS), NSCD),
        volumes=_volumes(pod, sandbox),
    )


def find(instance: Instance, node: str, uid: str) -> Sandbox | None:
    """A pod's sandbox, from outside of its node process."""
    record = instance.node(node).sandboxes / uid / RECORD
    return _read(record) if record.exists() else None


def hostname(pod: Mapping[str, Any]) -> str:
    """At most 63 characters, as the kubelet cuts it."""
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:63].rstrip("-.")


def resolv_conf(namespace: str) -> str:
    """As the kubelet's ClusterFirst policy writes it."""
    search = " ".join(f"{part}{CLUSTER_DOMAIN}" for part in (f"{namespace}.svc.", "svc.", ""))
    return f"nameserver {DNS_V4}\nnameserver {DNS_V6}\nsearch {search}\noptions ndots:5\n"


def hosts(pod: Mapping[str, Any], addresses: Pair) -> str:
    name, subdomain = hostname(pod), pod["spec"].get("subdomain")
    names = name
    if subdomain:
        names = f"{name}.{subdomain}.{pod['metadata']['namespace']}.svc.{CLUSTER_DOMAIN} {name}"
    local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    own = "".join(f"{ip} {names}\n" for ip in addresses.both())
    aliases = pod["spec"].get("hostAliases", ())
    return local + own + "".join(f"{each['ip']} {' '.join(each.get('hostnames', ()))}\n" for each in aliases)


def _write_files(pod: Mapping[str, Any], sandbox: Sandbox) -> None:
    directory = sandbox.directory
    (directory / "resolv.conf").write_text(resolv_conf(sandbox.namespace))
    (directory / "hosts").write_text(hosts(pod, sandbox.addresses))
    # Names come from the files above only: systemd-resolved and mDNS speak for the machine, not for the pod.
    (directory / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    for volume in _volumes(pod, sandbox).values():
        volume.mkdir(parents=True, exist_ok=True)
        volume.chmod(0o777)


def _volumes(pod: Mapping[str, Any], sandbox: Sandbox) -> dict[str, Path]:
    volumes = pod["spec"].get("volumes", ())
    return {each["name"]: sandbox.directory / "volumes" / each["name"] for each in volumes if _KINDS & each.keys()}


def _write(sandbox: Sandbox) -> None:
    record = {
        "uid": sandbox.uid,
        "namespace": sandbox.namespace,
        "name": sandbox.name,
        "place": sandbox.place,
        "addresses": sandbox.addresses.both(),
        "netns": str(sandbox.netns),
    }
    temporary = sandbox.directory / f".{RECORD}"
    temporary.write_text(json.dumps(record))
    temporary.rename(sandbox.directory / RECORD)


def _read_all(directory: Path) -> list[Sandbox]:
    return [_read(record) for record in directory.glob(f"*/{RECORD}")]


def _read(record: Path) -> Sandbox:
    data = json.loads(record.read_text())
    v4, v6 = data["addresses"]
    return Sandbox(
        uid=data["uid"],
        namespace=data["namespace"],
        name=data["name"],
        place=data["place"],
        addresses=Pair(Ip(v4), Ip(v6)),
        netns=Path(data["netns"]),
        directory=record.parent,
    )
