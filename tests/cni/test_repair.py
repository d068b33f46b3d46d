"""The installer that runs, while others write to the same directories."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from deploy.cni import changes, install
from deploy.cni.conflist import PLUGIN_TYPE
from deploy.cni.install import Installer
from tests.cni.directories import CONF, conflist, has_it, kinds, names, put, until


@asynccontextmanager
async def running(installer: Installer) -> AsyncIterator[None]:
    task = asyncio.create_task(installer.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def inotify_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "LOOK_EVERY", 3600.0)


@pytest.mark.usefixtures("inotify_only")
def test_waits_for_a_network_and_repairs_it(installer: Installer) -> None:
    async def story() -> None:
        async with running(installer):
            await until(lambda: "no network configuration yet" in installer.problem)
            assert not installer.installed.is_set()
            path = put(installer, "10-x.conflist", "{")
            await until(lambda: str(path) in installer.problem)
            put(installer, "10-x.conflist", conflist())
            await until(has_it(path))
            await installer.installed.wait()
            put(installer, "10-x.conflist", conflist(mtu=1400))
            await until(has_it(path))
            assert json.loads(path.read_text())["mtu"] == 1400
            path.write_text(json.dumps(conflist(mtu=1300)))  # in place
            await until(has_it(path))
            earlier = put(installer, "05-earlier.conflist", conflist())
            await until(has_it(earlier))
            earlier.unlink()
            (installer.bin_dir / PLUGIN_TYPE).unlink()
            await until((installer.bin_dir / PLUGIN_TYPE).exists)
            put(installer, "01-single.conf", CONF)
            await until(has_it(installer.conf_dir / "01-single.ambit.conflist"))
            (installer.conf_dir / "01-single.ambit.conflist").unlink()
            await until(has_it(installer.conf_dir / "01-single.ambit.conflist"))
        assert has_it(path)()

    asyncio.run(story())


@pytest.mark.parametrize("inotify", [True, False])
def test_a_directory_that_is_made_again(installer: Installer, monkeypatch: pytest.MonkeyPatch, inotify: bool) -> None:
    monkeypatch.setattr(install, "LOOK_EVERY", 0.05)
    if not inotify:
        monkeypatch.setattr(changes._libc, "inotify_init1", lambda _: -1)

    async def story() -> None:
        path = put(installer, "10-x.conflist", conflist())
        async with running(installer):
            await until(has_it(path))
            installer.conf_dir.rename(installer.conf_dir.with_name("away"))
            await until(lambda: "No such file" in installer.problem)
            installer.conf_dir.mkdir()
            put(installer, "10-x.conflist", conflist())
            await until(has_it(path))

    asyncio.run(story())


WRITER = """
import json, os, sys
path, rounds = sys.argv[1], int(sys.argv[2])
for count in range(rounds + 1):
    plugins = [{"type": "bridge", "filler": "x" * 5000}]
    with open(path + ".new", "w") as file:
        json.dump({"cniVersion": "1.0.0", "name": "cluster", "count": count, "plugins": plugins}, file)
    os.replace(path + ".new", path)
"""


@contextmanager
def reading(path: Path) -> Iterator[list[list[str]]]:
    """What a runtime finds in the file that reads it all the time."""
    reads: list[list[str]] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                reads.append(kinds(path))
            except (OSError, ValueError) as error:
                reads.append([repr(error)])

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield reads
    finally:
        ended.set()
        thread.join()


@pytest.mark.usefixtures("inotify_only")
def test_another_process_rewrites_it_all_the_time(installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "SETTLE", 0.0)
    path, rounds = put(installer, "10-x.conflist", conflist(count=-1)), 5000

    async def repairing(writer: subprocess.Popen[bytes]) -> None:
        async with running(installer):
            await until(lambda: writer.poll() is not None and has_it(path)())

    with reading(path) as reads, subprocess.Popen([sys.executable, "-c", WRITER, path, str(rounds)]) as writer:
        asyncio.run(repairing(writer))
    assert set(map(tuple, reads)) == {("bridge",), ("bridge", PLUGIN_TYPE)}  # whole at any time
    document = json.loads(path.read_text())
    assert (document["count"], kinds(path)) == (rounds, ["bridge", PLUGIN_TYPE])
    assert names(installer.conf_dir) == [path.name]
