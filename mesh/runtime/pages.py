"""Memory that is not needed goes back to the kernel: what only start-up has used, and large buffers after use."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path

MADV_DONTNEED = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
# Bytes. glibc raises both thresholds to the largest buffer that it has ever seen freed (up to 32 MiB), and from then on
# cuts large buffers out of the heap, between small objects that stay: under mixed load a worker's heap grew by 1 MiB a
# minute with nothing new in it. Setting them ends that. Below `LARGE` are the buffers of every tunnel, which come and
# go too often for a system call each; above it are the backlogs of streams whose reader pauses.
LARGE = 512 << 10
SPARE = 2 << 20  # what may stay free at the heap's end, for the next burst


def give_large_buffers_back() -> None:
    """Call it before any large buffer is made: they get pages of their own, which are unmapped when they are freed."""
    set_option = ctypes.CDLL(None).mallopt
    set_option(M_MMAP_THRESHOLD, LARGE)
    set_option(M_TRIM_THRESHOLD, SPARE)


def forget_startup_code() -> None:
    """Unmaps the pages of program files that were read while starting; what is needed again comes back from the page
    cache. A worker that has imported OpenSSL and Python's compiler is 10 MB smaller then, and 5 MB once it works."""
    forget = ctypes.CDLL(None).madvise
    for start, size in clean_code(Path("/proc/self/smaps").read_text().splitlines()):
        forget(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_DONTNEED)


def clean_code(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Start and size of all mappings of files that cannot be written to and of which no page was ever changed: only of
    these does the page cache hold every byte (proc(5), /proc/pid/smaps)."""
    mapping: tuple[int, int] | None = None
    for line in smaps:
        words = line.split()
        if words[0].endswith(":"):
            if words[0] == "Anonymous:" and mapping is not None and words[1] == "0":
                yield mapping
        else:
            is_code = len(words) >= 6 and words[5].startswith("/") and "w" not in words[1] and words[1].endswith("p")
            start, end = (int(word, 16) for word in words[0].split("-"))
            mapping = (start, end - start) if is_code else None
