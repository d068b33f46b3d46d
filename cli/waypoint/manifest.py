"""The Gateway that asks for a waypoint: pure."""

from __future__ import annotations

import re

from cli.errors import fail
from controller.compile.binding import OPT_OUT
from controller.compile.gateways import CLASSES, FOR_SERVICE_ACCOUNT, LISTENER, PROTOCOL, WAYPOINT_FOR, Traffic
from controller.store import kinds
from controller.store.interface import Object
from mesh.model.ports import HBONE

CLASS = CLASSES[0]
DEFAULT_NAME = "waypoint"
LONGEST_NAME = 63  # it becomes the value of a label, and a Service
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def gateway(namespace: str, name: str, account: str, traffic: Traffic | None) -> Object:
    """Raises CommandFailed: that cannot be a waypoint."""
    chosen = name or (f"{account}-waypoint" if account else DEFAULT_NAME)
    _check(chosen, account, traffic)
    metadata: dict[str, object] = {"name": chosen, "namespace": namespace}
    if account:
        metadata["annotations"] = {FOR_SERVICE_ACCOUNT: account}
    elif traffic is not None:
        metadata["labels"] = {WAYPOINT_FOR: traffic.value}
    listener = {"name": LISTENER, "port": HBONE, "protocol": PROTOCOL}
    spec = {"gatewayClassName": CLASS, "listeners": [listener]}
    return {"apiVersion": kinds.GATEWAY.api_version, "kind": "Gateway", "metadata": metadata, "spec": spec}


def _check(name: str, account: str, traffic: Traffic | None) -> None:
    if name == OPT_OUT:
        fail(f"a waypoint cannot be named {OPT_OUT!r}: as the value of istio.io/use-waypoint it means no waypoint")
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        fail(f"{name!r} cannot be the name of a waypoint: up to {LONGEST_NAME} lower case letters, digits and dashes")
    if account and name == account:
        fail(f"a waypoint runs as the service account of its own name: give it another --name than {account}")
    if account and traffic not in (None, Traffic.ALL):
        fail(f"a waypoint of a service account takes all of its traffic: --for {traffic} does not go with it")
