"""HAProxy on both sides: TCP in, one mutual TLS connection for each, TCP out. No HTTP/2, no sharing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.local.errors import LocalError
from perf.bench.certificates import KeyPair

MOST_CONNECTIONS = 6000  # above the 5,000 idle ones; two descriptors each stay below the usual limit of 20,000
BEGIN = f"""
global
  nbthread 1
  maxconn {MOST_CONNECTIONS}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
"""


def install(progress: Callable[[str], None]) -> None:
    """Debian's package, where there is none yet. Raises LocalError."""
    if shutil.which("haproxy"):
        return
    progress("Installing HAProxy, to compare with (apt-get install haproxy)")
    for command in ("apt-get update -qq", "apt-get install -y -qq --no-install-recommends haproxy"):
        try:
            done = subprocess.run(command.split(), capture_output=True, text=True)
        except FileNotFoundError:
            raise LocalError(
                "haproxy is missing, and there is no apt-get to install it: --system leaves it out"
            ) from None
        if done.returncode:
            raise LocalError(f"{command} failed: {done.stderr.strip().splitlines()[-1:]}; --system leaves HAProxy out")
    if Path("/run/systemd/system").exists():  # the package starts a service that nobody has asked for
        subprocess.run(["systemctl", "disable", "--now", "--quiet", "haproxy"], capture_output=True)


def command(config: Path) -> list[str]:
    return ["haproxy", "-db", "-f", str(config)]


def client(config: Path, keys: KeyPair, listen: int, count: int, peer: tuple[str, int]) -> None:
    """Writes the configuration: plain TCP on loopback, `listen` and the ports behind it, each to its port of `peer`."""
    tls = f"ssl verify required ca-file {keys.roots} crt {keys.both} ssl-min-ver TLSv1.3"
    parts = [
        f"listen tcp{index}\n  bind 127.0.0.1:{listen + index}\n  server peer {peer[0]}:{peer[1] + index} {tls}\n"
        for index in range(count)
    ]
    config.write_text(BEGIN + "".join(parts))


def server(config: Path, keys: KeyPair, listen: tuple[str, int], ports: Sequence[int]) -> None:
    """Writes the configuration: TLS on `listen` and the ports behind it, each to one of `ports` of the same address."""
    ip, first = listen
    tls = f"ssl crt {keys.both} ca-file {keys.roots} verify required ssl-min-ver TLSv1.3"
    parts = [
        f"listen tls{index}\n  bind {ip}:{first + index} {tls}\n  server app {ip}:{port}\n"
        for index, port in enumerate(ports)
    ]
    config.write_text(BEGIN + "".join(parts))
