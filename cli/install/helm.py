"""helm, as a command that others have made: found, and run with its failures in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import deploy
from cli.errors import CommandFailed

RELEASE = "ambit"
NAME = "helm"


def chart(named: Path | None) -> Path:
    """The chart that came with this command, or the named one. Raises CommandFailed."""
    found = named or Path(deploy.__file__).parent / "helm" / "ambit"
    if not (found / "Chart.yaml").exists():
        raise CommandFailed(f"there is no chart at {found}: name it with --chart (deploy/helm/ambit of the sources)")
    return found


@dataclass(frozen=True)
class Helm:
    """A helm for one cluster and namespace."""

    binary: str
    options: Sequence[str]

    @classmethod
    def find(cls, named: Path | None, kubeconfig: Path | None, context: str, namespace: str) -> Helm:
        """Raises CommandFailed."""
        binary = shutil.which(str(named or NAME))
        if binary is None:
            raise CommandFailed(
                f"there is no {named or NAME}: install helm 3 (https://helm.sh/docs/intro/install), or name one with "
                "--helm"
            )
        options = ["--namespace", namespace]
        options += ["--kube-context", context] if context else []
        options += ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
        return cls(binary, options)

    def run(self, *arguments: str) -> str:
        """Raises CommandFailed with helm's own words."""
        done = subprocess.run((self.binary, *arguments, *self.options), capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join(done.stderr.removeprefix("Error: ").split())
            raise CommandFailed(f"helm {arguments[0]} failed: {words or f'exit status {done.returncode}'}")
        return done.stdout

    def is_installed(self) -> bool:
        """Also a release whose installation failed half way. Raises CommandFailed."""
        return any(
            each["name"] == RELEASE for each in json.loads(self.run("list", "--all", "--output", "json") or "[]")
        )
