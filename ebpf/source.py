"""The C sources as one translation unit: BCC rewrites map accesses in the main file only, not in what it includes."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "bpf"
ORDER = (
    "contract.h",
    "common.c",
    "dns.c",
    "connect.c",
    "bind.c",
    "getpeername.c",
    "getsockname.c",
    "sockops.c",
    "node.c",
    "inbound.c",
)
PREAMBLE = (
    "#include <uapi/linux/bpf.h>\n#include <uapi/linux/in.h>\n#include <uapi/linux/in6.h>\n#include <linux/socket.h>\n"
)


def translation_unit() -> str:
    """All sources in order; #line keeps the compiler's messages true to the files."""
    return PREAMBLE + "".join(f'#line 1 "{name}"\n{(DIRECTORY / name).read_text()}\n' for name in ORDER)


def flags(pins: Path) -> list[str]:
    """What the compiler must be told: where maps are pinned, and which of BCC's own warnings are no news."""
    return [f'-DAMBIT_PINS="{pins}"', "-Wno-macro-redefined"]
