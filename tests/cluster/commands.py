"""Commands that are run to their end."""

from __future__ import annotations

import subprocess
from pathlib import Path


def run(*command: str, text: str | None = None, source: Path | None = None) -> str:
    """Its standard output; `text` or the file `source` is its standard input. Raises CommandError."""
    with (source or Path("/dev/null")).open("rb") as file:
        given: dict[str, object] = {"stdin": file} if text is None else {"input": text.encode()}
        done = subprocess.run(command, capture_output=True, **given)  # type: ignore[call-overload]
    if done.returncode:
        raise CommandError(done.returncode, command, done.stdout, done.stderr)
    return str(done.stdout.decode())


class CommandError(subprocess.CalledProcessError):
    """A failed command; its message is what the command itself said last."""

    def __str__(self) -> str:
        said = (self.stderr or self.stdout or b"").decode(errors="replace").strip().splitlines()
        return f"`{' '.join(self.cmd)[:200]}` ended with {self.returncode}: {'; '.join(said[-2:]) or 'nothing said'}"
