"""Pages of program files that start-up alone has needed."""

from __future__ import annotations

import subprocess
import sys

from mesh.runtime.pages import clean_code

SMAPS = """\
55d0a0000000-55d0a0010000 r-xp 00000000 08:01 11 /usr/bin/python3.11
Rss:                  64 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
55d0a0010000-55d0a0020000 r--p 00010000 08:01 11 /usr/lib/relocated.so
Anonymous:             4 kB
55d0a0020000-55d0a0030000 rw-p 00020000 08:01 11 /usr/bin/python3.11
Anonymous:             0 kB
55d0a0030000-55d0a0040000 rw-p 00000000 00:00 0 [heap]
Anonymous:             0 kB
55d0a0040000-55d0a0050000 r--s 00000000 08:01 12 /usr/lib/locale.cache
Anonymous:             0 kB
55d0a0050000-55d0a0060000 r-xp 00000000 00:00 0
Anonymous:             0 kB
"""


def test_only_unchanged_private_code_of_files_is_forgotten() -> None:
    assert list(clean_code(SMAPS.splitlines())) == [(0x55D0A0000000, 0x10000)]


def test_a_process_goes_on_and_is_smaller() -> None:
    script = (
        "import json, decimal, asyncio\n"
        "from mesh.runtime.pages import forget_startup_code\n"
        "def rss(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssFile'))\n"
        "before = rss(); forget_startup_code(); after = rss()\n"
        "assert json.loads('[1]') == [1] and decimal.Decimal(1) / 3\n"
        "print(before - after)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 0


def held_after_bursts(prepare: str) -> int:
    """KiB that a process still has after 32 MiB of large buffers are gone, between which small objects have stayed."""
    script = (
        "from mesh.runtime.pages import give_large_buffers_back\n"
        f"{prepare}\n"
        "def rss(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
        "del (largest := [bytearray(b'x') * (16 << 20)])[:]\n"
        "before = rss()\n"
        "pairs = [(bytearray(b'x') * (1 << 20), bytes(2000)) for _ in range(32)]\n"
        "small = [few for _, few in pairs]\n"
        "del pairs\n"
        "print(rss() - before)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def test_large_buffers_leave_no_holes_behind() -> None:
    assert held_after_bursts("give_large_buffers_back()") < 4 << 10 < 24 << 10 < held_after_bursts("")
