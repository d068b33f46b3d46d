"""The pods of a node: a worker for each pod that the store puts here, ended when its pod is gone."""

from __future__ import annotations

import asyncio
import logging
import shutil

from controller.store.interface import Key, NotFound, Object, StoreError
from deploy.local import processes
from deploy.local.node.pod_worker import Home, PodWorker
from deploy.mirror import Mirror

log = logging.getLogger("kubelet")

LEFTOVER_GRACE = 5.0  # seconds from SIGTERM to SIGKILL for a pod of which nothing but its processes is left


class Kubelet:
    """`run` until cancelled. Pods that run go on when it ends: the next one finds them."""

    def __init__(self, home: Home, mirror: Mirror) -> None:
        self._home, self._mirror = home, mirror
        self._workers: dict[str, PodWorker] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        await self._mirror.synced.wait()
        changed = self._mirror.listen()
        try:
            while True:
                await changed.wait()
                changed.clear()
                self._reconcile()
        finally:
            for worker in self._workers.values():
                worker.abandon()

    def _reconcile(self) -> None:
        node = self._home.node.name
        here = {
            str(pod["metadata"]["uid"]): pod for pod in self._mirror.of("Pod") if pod["spec"].get("nodeName") == node
        }
        for uid, pod in here.items():
            if "deletionTimestamp" in pod["metadata"]:
                self._end(uid, finalise=Key("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]))
            elif uid not in self._workers and uid not in self._ending and not _is_over(pod):
                self._workers[uid] = PodWorker(pod, self._home)
            elif uid in self._workers:
                self._workers[uid].pod = pod
        known = {*self._workers, *(sandbox.uid for sandbox in self._home.sandboxes.all())}
        for uid in known - here.keys():
            self._end(uid)

    def _end(self, uid: str, finalise: Key | None = None) -> None:
        if uid not in self._ending:
            task = self._ending[uid] = asyncio.create_task(self._terminate(uid, finalise))
            task.add_done_callback(lambda _: self._ended(uid))

    def _ended(self, uid: str) -> None:
        task = self._ending.pop(uid)
        if not task.cancelled() and task.exception() is not None:
            log.error("pod %s cannot be ended: %s", uid, task.exception())

    async def _terminate(self, uid: str, finalise: Key | None) -> None:
        worker = self._workers.pop(uid, None)
        if worker is not None:
            await worker.terminate()
        else:  # left by an earlier node process
            await processes.stop(self._home.instance.node(self._home.node.name).pod_cgroup(uid), LEFTOVER_GRACE)
            await self._home.gate.released(uid)
            await asyncio.to_thread(self._home.sandboxes.remove, uid)
        if worker is not None:
            self._forget_logs(worker.pod)
        if finalise is not None:
            try:
                await self._home.store.delete(finalise)
            except NotFound:
                pass
            except StoreError as error:
                log.warning("%s", error)

    def _forget_logs(self, pod: Object) -> None:
        """Those of a pod are gone with it, unless a new pod of its name has begun to write."""
        metadata = pod["metadata"]
        if self._mirror.get("Pod", metadata["namespace"], metadata["name"]) is None:
            shutil.rmtree(self._home.instance.pod_logs(metadata["namespace"], metadata["name"]), ignore_errors=True)


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
