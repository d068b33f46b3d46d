"""Become the process of a container: enter the pod's cgroup, network and mounts, then run the command.

Runs as a program of its own (`python -I -S enter.py DESCRIPTOR...`): what it does to itself must not happen to the node
process, and it must not start slowly, so it imports the standard library only. It reads an `Entry` as JSON from the
first descriptor; if the command cannot be started, the reason goes to the second one, which a command that did start
has closed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run by path, isolated: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local import syscalls

NOT_FOUND, NOT_STARTED = 127, 126  # the shell's exit codes for a command that is not there, or cannot be run


def main() -> int:
    entry, report = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report, False)
    try:
        with os.fdopen(entry) as source:
            become(json.load(source))
    except FileNotFoundError as error:
        os.write(report, _reason(error))
        return NOT_FOUND
    except (OSError, ValueError) as error:
        os.write(report, _reason(error))
        return NOT_STARTED
    return 0


def become(entry: dict[str, Any]) -> None:
    """Returns only by raising OSError. The fields are those of `entry.Entry`."""
    Path(entry["cgroup"], "cgroup.procs").write_text("0")
    if entry["netns"]:
        _join_network(entry["netns"])
    if entry["hostname"]:
        _make_mounts(entry["binds"], entry["hidden"], entry["hostname"])
    os.chdir(entry["working_directory"])
    _raise_limits()
    _become_user(entry["user"], entry["group"])
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    command = entry["command"]
    os.execvpe(command[0], command, entry["environment"])


def _join_network(netns: str) -> None:
    descriptor = os.open(netns, os.O_RDONLY)
    syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
    os.close(descriptor)


def _make_mounts(binds: list[list[str]], hidden: list[str], hostname: str) -> None:
    """Hidden are the keys of the mesh, and its namespace files: a copy of their mounts would keep other pods' alive."""
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    socket.sethostname(hostname)
    for source, target in binds:
        syscalls.bind(source, target)
    for directory in hidden:
        if os.path.isdir(directory):
            _empty(directory)


def _empty(directory: str) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target == directory or target.startswith(directory + "/"):
            syscalls.unmount(target)
    syscalls.mount("tmpfs", directory, "tmpfs", options="size=4k,mode=755")


def _raise_limits() -> None:
    """Container runtimes give containers all the descriptors that they may have; a login session gives 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _become_user(user: int | None, group: int | None) -> None:
    if group is not None:
        os.setgroups([])
        os.setgid(group)
    if user is not None:
        os.setuid(user)


def _reason(error: Exception) -> bytes:
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}".encode()
    return str(error).encode()


if __name__ == "__main__":
    sys.exit(main())
