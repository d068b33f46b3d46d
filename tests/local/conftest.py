"""One small mesh for all tests of this folder that only use one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.local.mesh import LocalMesh, running, until

PLAYGROUND = """
apiVersion: v1
kind: Namespace
metadata: {name: play}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: play, labels: {app: one}}
spec:
  nodeName: node1
  containers: [{name: main, image: ambit/echo, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: play, labels: {app: two}}
spec:
  nodeName: node2
  hostname: two
  subdomain: peers
  containers: [{name: main, image: ambit/echo, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: play}
spec: {selector: {app: one}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: play}
spec: {selector: {app: two}, ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: play}
spec: {clusterIP: None, selector: {app: two}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: play}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
"""


@pytest.fixture(scope="package")
def mesh() -> Iterator[LocalMesh]:
    """Two nodes, a pod on each, Services before them. Tests make what else they need in namespaces of their own."""
    with running(f"ambit-test-local-{os.getpid()}", 2) as found:
        found.apply(PLAYGROUND)
        until(lambda: found.ready("one", "play") and found.ready("two", "play"), "the pods are ready")
        until(lambda: "sees" in found.ask("play", "one", "http://two/"), "the Service works")
        yield found
