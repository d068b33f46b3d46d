"""The commands of `python -m tests.cluster`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import build, daemons, images, lifecycle, nodes, record
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN, DEFAULT_NAME, Cluster, lock_of_users

NO_GO = 3  # a test that sees this exit code skips with the sentence on standard error


def main(arguments: list[str] | None = None) -> int:
    """0 when done, 1 with a sentence when not, NO_GO when there is no Go toolchain."""
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        return _fail("the test cluster makes namespaces and cgroups: run it as root", 1)
    try:
        return int(options.run(options) or 0)
    except build.NoGoError as error:
        return _fail(str(error), NO_GO)
    except subprocess.CalledProcessError as error:
        return _fail(str(error), 1)
    except (KeyError, LookupError) as error:
        return _fail(str(error.args[0]), 1)
    except (OSError, RuntimeError, ValueError) as error:
        return _fail(str(error), 1)


def _fail(sentence: str, code: int) -> int:
    print(f"cluster: {sentence}", file=sys.stderr)
    return code


def _say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.cluster", description="A real Kubernetes on this machine.")
    parser.add_argument("--name", default=DEFAULT_NAME, help="several may run (default %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=function)
        return made

    command("build", _build, "compile Kubernetes, CoreDNS and helm into the cache; install Debian packages")
    up = command("up", _up, "bring the cluster up (builds first)")
    up.add_argument("--nodes", type=int, default=2, help="default %(default)s")
    family = up.add_mutually_exclusive_group()
    family.add_argument("--ipv4", action="store_true", help="IPv4 only (the default)")
    family.add_argument("--dual-stack", action="store_true", help="IPv4 and IPv6")
    down = command("down", _down, "remove the cluster and every trace of it but the cache")
    down.add_argument("--force", action="store_true", help="also when another process works with it")
    command("load", _load, "load OCI or docker archives on every node").add_argument("archive", nargs="+", type=Path)
    image = command("image", _image, "make a one-layer image of files or a root file system, and load it")
    image.add_argument("image", help="whole name, such as localhost/app:dev")
    image.add_argument("entrypoint", help="split at blanks")
    image.add_argument("file", nargs="+", help="FILE:/PATH/IN/IMAGE; DIRECTORY:/ for a root file system")
    command("status", _status, "what runs; exit code 1 unless all does")
    command("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    paths = command("paths", _paths, "print where things of a node are")
    paths.add_argument("node")
    paths.add_argument("--json", action="store_true")
    for name, text in (("stop", "stop"), ("start", "start what was stopped"), ("restart", "stop and start")):
        changed = command(name, _change, f"{text}: `node1 kubelet`, `control-plane`, `apiserver`, ...")
        changed.add_argument("target", nargs="+", help="NODE [DAEMON] | control-plane | DAEMON of the control plane")
        changed.add_argument("--kill", action="store_true", help="SIGKILL instead of SIGTERM")
        changed.set_defaults(verb=name)
    inside = command("exec", _exec, "run a command on a node, or in `control`, `outside` or `underlay`")
    inside.add_argument("place")
    inside.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
    hold = command("hold", _hold, "run a command (default: a shell) that works with the cluster, with the lock held")
    hold.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
    return parser


def _cluster(options: argparse.Namespace) -> Cluster:
    if cluster := record.load(options.name):
        return cluster
    raise LookupError(f"there is no cluster {options.name}: `python -m tests.cluster up` makes one")


def _build(options: argparse.Namespace) -> None:
    build.build(_say)


def _up(options: argparse.Namespace) -> None:
    build.build(_say)
    print(lifecycle.up(options.name, options.nodes, options.dual_stack, _say).kubeconfig)


def _down(options: argparse.Namespace) -> None:
    if not options.force and (holder := record.in_use(options.name)):
        raise RuntimeError(f"{holder}; `down --force` removes it all the same")
    if not lifecycle.down(options.name):
        _say(f"there is no cluster {options.name}")


def _load(options: argparse.Namespace) -> None:
    for archive in options.archive:
        print(*images.load(_cluster(options), archive), sep="\n")


def _image(options: argparse.Namespace) -> None:
    cluster = _cluster(options)
    files = {target: Path(source) for source, _, target in (file.rpartition(":") for file in options.file)}
    archive = cluster.state / f"image-{os.getpid()}.tar"
    try:
        make_image(archive, options.image, options.entrypoint.split(), files)
        print(*images.load(cluster, archive))
    finally:
        archive.unlink(missing_ok=True)


def _status(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    print(*lifecycle.status(cluster), sep="\n")
    return 0 if lifecycle.healthy(cluster) else 1


def _kubeconfig(options: argparse.Namespace) -> None:
    print(_cluster(options).kubeconfig)


def _paths(options: argparse.Namespace) -> None:
    found = nodes.paths(_cluster(options).node(options.node))
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{key:20} {found[key]}" for key in found))


def _change(options: argparse.Namespace) -> None:
    cluster = _cluster(options)
    for name in daemons.named(cluster, options.target):
        daemons.change(cluster, name, options.verb, options.kill)


def _exec(options: argparse.Namespace) -> None:
    command = daemons.inside(_cluster(options), options.place, _command(options, "sh"))
    os.execvp(command[0], command)


def _hold(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": f"{BIN}:{os.environ['PATH']}"}
    with record.locked(lock_of_users(options.name), block=True):
        return subprocess.run(_command(options, os.environ.get("SHELL", "sh")), env=environment).returncode


def _command(options: argparse.Namespace, default: str) -> list[str]:
    command = list(options.command)
    return (command[1:] if command[:1] == ["--"] else command) or [default]
