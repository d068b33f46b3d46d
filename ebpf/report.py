"""What a node's capture is, as plain values; as JSON: python -m ebpf.report [--pins DIR].

Unlike the loader's `status`, it counts what the node's programs have written, and needs no BCC.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ebpf.attachment import idle_hooks
from ebpf.node import Capture, NotLoaded

PINS = "AMBIT_BPF_PINS"
DEFAULT_PINS = "/sys/fs/bpf/ambit"


def describe(pins: Path) -> dict[str, Any]:
    """Captured pods each way (inbound by uid), hooks that no program is attached to, exempt cgroups by id, entries per
    map. Raises NotLoaded, OSError."""
    capture = Capture.open(pins)
    try:
        return {
            "pins": str(pins),
            "enrolled": len(capture.enrolled()),
            "idleHooks": list(idle_hooks(pins)),
            "inbound": sorted(capture.attached_inbound()),
            "exemptCgroups": sorted(capture.exempted()),
            "maps": capture.counts(),
        }
    finally:
        capture.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="What the capture of this node is, as JSON.")
    parser.add_argument("--pins", type=Path, default=Path(os.environ.get(PINS, DEFAULT_PINS)))
    try:
        print(json.dumps(describe(parser.parse_args().pins)))
    except (NotLoaded, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
