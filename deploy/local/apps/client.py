"""The image `ambit/client`: asks URLs (its arguments) in turn, once a second (environment EVERY), and prints the
first line of each answer. Standard library only."""

from __future__ import annotations

import os
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

PATIENCE = 5.0


def ask(url: str) -> str:
    try:
        with urlopen(url, timeout=PATIENCE) as response:
            return f"{response.status} {response.read(4096).decode(errors='replace').partition(chr(10))[0]}"
    except (URLError, OSError, ValueError) as error:
        return f"failed: {error}"


def main() -> int:
    if len(sys.argv) < 2:
        print("ambit/client: give it URLs as args", file=sys.stderr)
        return 2
    pause = float(os.environ.get("EVERY", 1))
    while True:
        for url in sys.argv[1:]:
            print(f"{time.strftime('%H:%M:%S')} {url} {ask(url)}", flush=True)
            time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
