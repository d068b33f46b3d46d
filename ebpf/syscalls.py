"""bpf(2) without a library: what the node needs of it, with ctypes.

Descriptors are plain ints that the caller closes. Every failure is an OSError with the kernel's errno and, in its
text, what was asked. Calls keep the interpreter's lock: each takes about a microsecond, less than giving it away.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import NamedTuple

NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD, OBJ_PIN, OBJ_GET = range(8)
OBJ_GET_INFO, PROG_QUERY, MAP_LOOKUP_AND_DELETE, MAP_LOOKUP_BATCH = 15, 16, 21, 24
LINK_CREATE, LINK_UPDATE, LINK_DETACH = 28, 29, 34

BPFFS_MAGIC, CGROUP2_MAGIC = 0xCAFE4A11, 0x63677270

libc = ctypes.PyDLL(None, use_errno=True)


class MapElement(ctypes.Structure):
    """The part of union bpf_attr that element commands use."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


def failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def syscall_number() -> int:
    """Raises OSError on a machine whose number for bpf(2) is not known here."""
    machine = platform.machine()
    if machine not in NUMBERS:
        raise OSError(f"bpf(2) has no known number on {machine}")
    return NUMBERS[machine]


BPF = syscall_number()


def call(command: int, attributes: bytes, what: str) -> int:
    """One bpf(2) call; `attributes` as union bpf_attr wants them."""
    result = int(libc.syscall(BPF, command, ctypes.c_char_p(attributes), len(attributes)))
    if result < 0:
        raise failure(what)
    return result


def path_pointer(path: Path) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """An address to hand to the kernel, and the buffer that must outlive the call."""
    buffer = ctypes.create_string_buffer(os.fsencode(path))
    return ctypes.addressof(buffer), buffer


def get(path: Path) -> int:
    """A descriptor for the map, program or link pinned at `path`."""
    address, buffer = path_pointer(path)
    descriptor = call(OBJ_GET, struct.pack("=QII", address, 0, 0), f"open {path}")
    del buffer
    return descriptor


def pin(descriptor: int, path: Path) -> None:
    address, buffer = path_pointer(path)
    call(OBJ_PIN, struct.pack("=QII", address, descriptor, 0), f"pin {path}")
    del buffer


def link_create(program: int, target: int, attach_type: int) -> int:
    """Attaches a program to a cgroup or network namespace for as long as the link lives."""
    return call(LINK_CREATE, struct.pack("=IIII", program, target, attach_type, 0), "attach a program")


def link_update(link: int, program: int) -> None:
    """Swaps the program of a link; nothing passes between the old one and the new one. ENOLINK: its target is gone."""
    call(LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0), "swap a program")


def link_detach(link: int) -> None:
    call(LINK_DETACH, struct.pack("=I", link), "detach a program")


def attached(target: int, attach_type: int) -> int:
    """How many programs are attached in this place of a cgroup or network namespace itself, whoever did it."""
    attributes = ctypes.create_string_buffer(struct.pack("=IIIIQII", target, attach_type, 0, 0, 0, 0, 0))
    if libc.syscall(BPF, PROG_QUERY, attributes, len(attributes)) < 0:
        raise failure("query attached programs")
    return int(struct.unpack_from("=I", attributes.raw, 24)[0])


def create_map(map_type: int, key_size: int, value_size: int, entries: int) -> int:
    return call(MAP_CREATE, struct.pack("=IIIII", map_type, key_size, value_size, entries, 0), "create a map")


def load_program(program_type: int, attach_type: int, instructions: bytes) -> int:
    """Loads machine code as it is; only feature probes are short enough to be written so."""
    code = ctypes.create_string_buffer(instructions)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(program_type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, b"probe", 0, attach_type),
    )
    return call(PROG_LOAD, attributes, "load a program")


def information(descriptor: int, size: int) -> bytes:
    """The first `size` bytes of struct bpf_{map,prog,link}_info."""
    buffer = ctypes.create_string_buffer(size)
    call(OBJ_GET_INFO, struct.pack("=IIQ", descriptor, size, ctypes.addressof(buffer)), "describe a descriptor")
    return buffer.raw


class MapInfo(NamedTuple):
    type: int
    id: int
    key_size: int
    value_size: int
    entries: int


class LinkInfo(NamedTuple):
    """`target` is a cgroup id or a netns inode number; 0 when the target is gone."""

    id: int
    program_id: int
    target: int


def map_info(descriptor: int) -> MapInfo:
    return MapInfo(*struct.unpack("=IIIII", information(descriptor, 20)))


def program_id(descriptor: int) -> int:
    return int(struct.unpack_from("=I", information(descriptor, 8), 4)[0])


LINK_CGROUP = 3  # enum bpf_link_type


def link_info(descriptor: int) -> LinkInfo:
    """Of a cgroup or netns link."""
    raw = information(descriptor, 32)
    kind, identifier, program = struct.unpack_from("=III", raw)
    target = struct.unpack_from("=Q" if kind == LINK_CGROUP else "=I", raw, 16)[0]
    return LinkInfo(identifier, program, int(target))


def filesystem_magic(path: Path) -> int:
    """f_type of statfs(2): which kind of file system `path` is on."""
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer):
        raise failure(str(path))
    return int(struct.unpack_from("=Q", buffer.raw)[0])


def mount(kind: str, target: Path) -> None:
    if libc.mount(kind.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(0), None):
        raise failure(f"mount {target}")
