"""Puts the CNI plugin into a node's chain, keeps it there, and takes it out again.

Others write to the same directory at any time: the network's own installer after its upgrade, a second network that
sorts first. So a look at what is there is all that ever happens, and it is repeated. What is decided is in `conflist`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.cni import files
from deploy.cni.changes import Changes
from deploy.cni.conflist import (
    DERIVED,
    EXTENSIONS,
    PLUGIN_TYPE,
    ConfigError,
    Conflist,
    Settings,
    active,
    as_conflist,
    derived_name,
    parse,
    with_plugin,
    without_plugin,
    write,
)

log = logging.getLogger("cni-installer")

BINARY = Path("/usr/local/lib/ambit/ambit-cni")  # in the node image
BINARY_MODE = 0o755
LOOK_EVERY = 5.0  # seconds, for what inotify does not tell (network file systems, another mount of the directory)
SETTLE = 0.1  # seconds after a change: who writes a file in several steps gets to its end


class InstallError(Exception):
    """One sentence that names the file or directory. Trying again later may help."""


@dataclass(eq=False)
class Installer:
    """`run` until cancelled; the plugin stays then, as the agent is only restarted. `remove` uninstalls."""

    conf_dir: Path
    bin_dir: Path
    settings: Settings = field(default_factory=Settings)
    binary: Path = BINARY
    installed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the plugin is in the chain that runtimes use."""
    problem: str = ""
    """Why it is not, at present."""

    async def run(self) -> None:
        self._sweep()
        with Changes((self.conf_dir, self.bin_dir)) as changes:
            while True:
                changes.watch()
                self._look()
                await changes.wait(LOOK_EVERY)
                await asyncio.sleep(SETTLE)

    def install(self) -> Path:
        """One look. Returns the configuration that has the plugin. Raises InstallError."""
        with _named(self.bin_dir):
            if files.put(self.bin_dir / PLUGIN_TYPE, self.binary.read_bytes(), BINARY_MODE):
                log.info("installed %s", self.bin_dir / PLUGIN_TYPE)
        with _named(self.conf_dir):
            first = active(entry.name for entry in self.conf_dir.iterdir())
        wanted = self.conf_dir / (_wanted_name(first) if first else "")
        if first:
            with _named(self.conf_dir / first):
                if self._insert(self.conf_dir / first, wanted):
                    log.info("%s is in the chain of %s", PLUGIN_TYPE, wanted)
        self._drop_derived(wanted)
        if not first:
            raise InstallError(
                f"{self.conf_dir} has no network configuration yet: waiting for the cluster's network plugin"
            )
        return wanted

    def remove(self) -> None:
        """Out of all configurations, and only then the binary goes: nothing refers to it any more.

        Raises InstallError: some configuration still has the plugin; the others do not.
        """
        problems = []
        self._sweep()
        self._drop_derived(self.conf_dir)
        with _named(self.conf_dir):
            names = sorted(entry.name for entry in self.conf_dir.iterdir() if entry.name.endswith(EXTENSIONS))
        for name in names:
            try:
                with _named(self.conf_dir / name):
                    self._take_out(self.conf_dir / name)
            except InstallError as problem:
                problems.append(str(problem))
        if problems:
            raise InstallError("; ".join(problems))
        with _named(self.bin_dir / PLUGIN_TYPE):
            files.remove(self.bin_dir / PLUGIN_TYPE)

    def _sweep(self) -> None:
        for directory in (self.bin_dir, self.conf_dir):
            try:
                files.sweep(directory)
            except OSError as error:  # what is left there does no harm
                log.warning("%s: %s", directory, error.strerror)

    def _look(self) -> None:
        try:
            self.install()
        except InstallError as error:
            if str(error) != self.problem:
                log.warning("%s", error)
            self.problem = str(error)
            self.installed.clear()
        else:
            self.problem = ""
            self.installed.set()

    def _insert(self, source: Path, wanted: Path) -> bool:
        if source == wanted:
            return files.change(source, _edit(lambda conflist: with_plugin(conflist, self.settings)))
        conflist = with_plugin(as_conflist(parse(files.read(source))), self.settings)
        return files.put(wanted, write(conflist).encode(), source.stat().st_mode & 0o7777)

    def _take_out(self, path: Path) -> None:
        if PLUGIN_TYPE in files.read(path) and files.change(path, _edit(without_plugin)):
            log.info("%s is out of the chain of %s", PLUGIN_TYPE, path)

    def _drop_derived(self, wanted: Path) -> None:
        """Ours that nothing stands behind any more: its original is gone, or another configuration comes first."""
        with _named(self.conf_dir):
            for path in self.conf_dir.glob("*" + DERIVED):
                if path != wanted and files.remove(path):
                    log.info("removed %s", path)


def _wanted_name(first: str) -> str:
    return first if first.endswith(".conflist") else derived_name(first)


def _edit(change: Callable[[Conflist], Conflist]) -> Callable[[str], str]:
    """Text in which nothing changes keeps its formatting."""

    def edited(text: str) -> str:
        before = parse(text)
        after = change(before)
        return text if after == before else write(after)

    return edited


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What fails is said with the file's name."""
    try:
        yield
    except OSError as error:
        raise InstallError(f"{error.filename or path}: {error.strerror or error}") from None
    except (ConfigError, ValueError) as error:
        raise InstallError(f"{path}: {error}") from None
