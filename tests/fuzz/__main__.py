"""Fuzzes one target for a while and keeps the inputs that reach new code."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.fuzz.engine import Finding, explore
from tests.fuzz.targets import PACKAGE, PACKAGES, TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    package = PACKAGES.get(options.target, PACKAGE)
    chance = random.Random(options.seed)
    try:
        new = explore(options.target, TARGETS[options.target], package, chance, lambda: time.monotonic() < until)
    except Finding as finding:
        print(finding, file=sys.stderr)
        return 1
    print(f"{new} inputs reached new code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
