"""The installer on real directories, look by look, and its commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.cni import files
from deploy.cni.conflist import PLUGIN_TYPE
from deploy.cni.install import Installer, InstallError
from tests.cni.directories import CONF, conflist, has_it, kinds, names, put, until

# --- one look


def test_installed_and_removed(installer: Installer) -> None:
    document = conflist(unknown={"é": [1.0, None]}, disableCheck=True)
    path = put(installer, "10-x.conflist", document)
    path.chmod(0o600)
    os.chown(path, 7, 8)
    assert installer.install() == path
    assert kinds(path) == ["bridge", PLUGIN_TYPE]
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid, path.stat().st_gid) == (0o600, 7, 8)
    assert (installer.bin_dir / PLUGIN_TYPE).read_bytes() == b"\x7fELF one"
    assert (installer.bin_dir / PLUGIN_TYPE).stat().st_mode & 0o7777 == 0o755
    installer.remove()
    assert json.loads(path.read_text()) == document
    assert names(installer.conf_dir) == ["10-x.conflist"]
    assert names(installer.bin_dir) == []
    installer.remove()


def test_a_second_look_writes_nothing(installer: Installer) -> None:
    path = put(installer, "10-x.conflist", conflist())
    installer.install()
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in (path, installer.bin_dir / PLUGIN_TYPE)]
    installer.install()
    assert [(file.stat().st_ino, file.stat().st_mtime_ns) for file in (path, installer.bin_dir / PLUGIN_TYPE)] == before


def test_a_newer_binary_takes_its_place_while_the_old_one_runs(installer: Installer) -> None:
    put(installer, "10-x.conflist", conflist())
    installer.binary.write_bytes(Path("/bin/sleep").read_bytes())
    installer.install()
    with subprocess.Popen([installer.bin_dir / PLUGIN_TYPE, "60"]) as running:
        installer.binary.write_bytes(b"\x7fELF two")
        installer.install()
        assert running.poll() is None
        running.kill()
    assert (installer.bin_dir / PLUGIN_TYPE).read_bytes() == b"\x7fELF two"


@pytest.mark.parametrize("name", ["10-x.conf", "10-x.json"])
def test_a_single_plugin_gets_a_list_before_it(installer: Installer, name: str) -> None:
    original = put(installer, name, CONF)
    text = original.read_text()
    derived = installer.install()
    assert derived.name == sorted(names(installer.conf_dir))[0] == "10-x.ambit.conflist"
    assert kinds(derived) == ["bridge", PLUGIN_TYPE]
    assert original.read_text() == text
    installer.remove()
    assert names(installer.conf_dir) == [name]
    assert original.read_text() == text


def test_a_single_plugin_that_changes_or_goes(installer: Installer) -> None:
    original = put(installer, "10-x.conf", CONF)
    derived = installer.install()
    put(installer, "10-x.conf", {**CONF, "mtu": 1400})
    installer.install()
    assert json.loads(derived.read_text())["plugins"][0]["mtu"] == 1400
    original.unlink()
    put(installer, "20-y.conflist", conflist())
    assert installer.install().name == "20-y.conflist"
    assert names(installer.conf_dir) == ["20-y.conflist"]


def test_no_network_is_left_where_there_is_none_any_more(installer: Installer) -> None:
    put(installer, "10-x.conf", CONF)
    installer.install()
    (installer.conf_dir / "10-x.conf").unlink()
    with pytest.raises(InstallError, match="no network configuration yet"):
        installer.install()
    assert names(installer.conf_dir) == []


def test_of_two_lists_the_first(installer: Installer) -> None:
    put(installer, "20-y.conflist", conflist())
    first = put(installer, "10-x.conflist", conflist())
    put(installer, "00-notes.txt", "{")
    assert installer.install() == first
    assert kinds(installer.conf_dir / "20-y.conflist") == ["bridge"]


def test_removed_from_all_lists(installer: Installer) -> None:
    put(installer, "20-y.conflist", conflist())
    installer.install()
    put(installer, "10-x.conflist", conflist())
    installer.install()
    put(installer, "99-broken.conflist", "{")
    installer.remove()
    assert [kinds(installer.conf_dir / name) for name in ("10-x.conflist", "20-y.conflist")] == [["bridge"]] * 2


def test_the_binary_stays_as_long_as_a_list_names_it(installer: Installer) -> None:
    first = put(installer, "10-x.conflist", conflist())
    installer.install()
    broken = put(installer, "20-y.conflist", '{"plugins":[{"type":"ambit-cni"')
    with pytest.raises(InstallError, match=r"20-y\.conflist: it is no JSON"):
        installer.remove()
    assert kinds(first) == ["bridge"]
    assert names(installer.bin_dir) == [PLUGIN_TYPE]
    broken.unlink()
    installer.remove()
    assert names(installer.bin_dir) == []


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b"\xff", b"[]", b'{"plugins":[]}', b" " * (files.READ_LIMIT + 1), b'{"plugins":[{}],"x":"\\ud800"}'],
)
def test_malformed_is_named_and_left_alone(installer: Installer, content: bytes) -> None:
    path = installer.conf_dir / "10-x.conflist"
    path.write_bytes(content)
    other = put(installer, "20-y.conflist", conflist())
    with pytest.raises(InstallError, match=r"net\.d/10-x\.conflist: it"):
        installer.install()
    assert path.read_bytes() == content
    assert kinds(other) == ["bridge"]
    assert names(installer.conf_dir) == ["10-x.conflist", "20-y.conflist"]


@pytest.mark.parametrize("missing", ["conf_dir", "bin_dir", "binary"])
def test_a_place_that_is_not_there_is_named(installer: Installer, missing: str) -> None:
    put(installer, "10-x.conflist", conflist())
    gone = installer.conf_dir.parent / "gone"
    setattr(installer, missing, gone)
    with pytest.raises(InstallError, match=f"{gone}.*: No such file"):
        installer.install()


def test_a_link_stays_a_link(installer: Installer, tmp_path: Path) -> None:
    target = put(installer, "../real.conflist", conflist())
    link = installer.conf_dir / "10-x.conflist"
    link.symlink_to(target)
    installer.install()
    assert link.is_symlink()
    assert kinds(target) == ["bridge", PLUGIN_TYPE]


def test_without_exchange_of_files(installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = put(installer, "10-x.conflist", conflist())
    installer.install()
    assert kinds(path) == ["bridge", PLUGIN_TYPE]


# --- another process writes between our read and our write


def test_what_is_written_meanwhile_is_kept(installer: Installer) -> None:
    path = put(installer, "10-x.conflist", conflist(count=0))
    texts: list[str] = []

    def edit(text: str) -> str:
        texts.append(text)
        if len(texts) == 2:  # they write after we read
            put(installer, path.name, conflist(count=1))
        return text.replace("cluster", "edited")

    assert files.change(path, edit)
    document = json.loads(path.read_text())
    assert (document["count"], document["name"]) == (1, "edited")


def test_what_is_half_written_meanwhile_is_put_back(installer: Installer) -> None:
    path = put(installer, "10-x.conflist", conflist(count=0))
    writers: list[Any] = []

    def edit(text: str) -> str:
        json.loads(text)
        if not writers:
            writers.append(None)
        elif len(writers) == 1:
            writers.append(path.open("w"))
            writers[1].write('{"cou')
            writers[1].flush()
        return text.replace("cluster", "edited")

    with pytest.raises(ValueError, match="Unterminated"):
        files.change(path, edit)
    writers[1].write('nt":1}')
    writers[1].close()
    assert json.loads(path.read_text()) == {"count": 1}
    assert names(installer.conf_dir) == [path.name]


# --- the command


def command(installer: Installer, name: str, *more: str) -> list[str]:
    places = [
        "--conf-dir",
        str(installer.conf_dir),
        "--bin-dir",
        str(installer.bin_dir),
        "--binary",
        str(installer.binary),
    ]
    return [sys.executable, "-m", "deploy.cni", name, *places, *more]


def test_the_commands(installer: Installer) -> None:
    path = put(installer, "10-x.conflist", conflist())
    options = ["--socket", "/run/other.sock", "--enrolled-namespaces", "/other", "--timeout", "7", "--retry", "0.5"]
    with subprocess.Popen(command(installer, "run", *options)) as run:
        asyncio.run(asyncio.wait_for(until(has_it(path)), 60))
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0
    assert json.loads(path.read_text())["plugins"][-1] == {
        "type": PLUGIN_TYPE,
        "agentSocket": "/run/other.sock",
        "enrolledNamespaces": "/other",
        "timeoutSeconds": 7.0,
        "retrySeconds": 0.5,
    }
    subprocess.run(command(installer, "install"), check=True)
    assert json.loads(path.read_text())["plugins"][-1]["agentSocket"] == "/var/run/ambit/cni.sock"
    subprocess.run(command(installer, "remove"), check=True)
    assert (kinds(path), names(installer.bin_dir)) == (["bridge"], [])


def test_a_removal_that_fails_says_so(installer: Installer) -> None:
    put(installer, "10-x.conflist", '{"ambit-cni"')
    done = subprocess.run(command(installer, "remove"), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("ambit: ")
    assert "10-x.conflist" in done.stderr


@pytest.mark.root
def test_needs_no_capability(installer: Installer) -> None:
    path = put(installer, "10-x.conflist", conflist())
    os.chown(path, 1000, 1000)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    subprocess.run([*drop, *command(installer, "install")], check=True)
    assert kinds(path) == ["bridge", PLUGIN_TYPE]
    assert path.stat().st_mode & 0o7777 == 0o644
    subprocess.run([*drop, *command(installer, "remove")], check=True)
    assert (kinds(path), names(installer.bin_dir)) == (["bridge"], [])
