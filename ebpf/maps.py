"""Maps of the kernel as Python sees them: bytes in, bytes out, one system call each.

A Map owns its descriptor and keeps its buffers, so that a look-up allocates next to nothing; it is for one thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from ebpf import syscalls

DELETE_SIZE = 16  # of the attributes: the kernel wants nothing behind the key
BATCH = 1024  # keys per system call; a bucket of a hash map holds far fewer


class Map:
    def __init__(self, descriptor: int, name: str) -> None:
        info = syscalls.map_info(descriptor)
        self.descriptor = descriptor
        self.name = name
        self.info = info
        self._key = ctypes.create_string_buffer(info.key_size)
        self._value = ctypes.create_string_buffer(info.value_size)
        self._element = syscalls.MapElement(descriptor, ctypes.addressof(self._key), ctypes.addressof(self._value), 0)
        self._size = ctypes.sizeof(self._element)
        self._attributes = ctypes.byref(self._element)

    @classmethod
    def open(cls, pin: Path) -> Map:
        """Raises OSError when there is no such pin."""
        return cls(syscalls.get(pin), pin.name)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def lookup(self, key: bytes) -> bytes | None:
        return self._read(syscalls.MAP_LOOKUP, key)

    def take(self, key: bytes) -> bytes | None:
        """The value, which is gone from the map afterwards."""
        return self._read(syscalls.MAP_LOOKUP_AND_DELETE, key)

    def update(self, key: bytes, value: bytes) -> None:
        """Raises OSError: E2BIG when the map is full, what the map type says otherwise."""
        self._value.raw = value
        if self._call(syscalls.MAP_UPDATE, key):
            raise self._failure()

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        self._key.raw = key
        if syscalls.libc.syscall(syscalls.BPF, syscalls.MAP_DELETE, self._attributes, DELETE_SIZE) == 0:
            return True
        if ctypes.get_errno() == errno.ENOENT:
            return False
        raise self._failure()

    def snapshot(self) -> list[bytes]:
        """All keys at about this moment."""
        try:
            return list(self._batches())
        except OSError as problem:
            if problem.errno not in (errno.EINVAL, errno.EOPNOTSUPP, 524):  # 524: the kernel's own ENOTSUPP
                raise
        return list(self._walk())

    def _read(self, command: int, key: bytes) -> bytes | None:
        if self._call(command, key) == 0:
            return self._value.raw
        if ctypes.get_errno() == errno.ENOENT:
            return None
        raise self._failure()

    def _call(self, command: int, key: bytes) -> int:
        self._key.raw = key
        return int(syscalls.libc.syscall(syscalls.BPF, command, self._attributes, self._size))

    def _failure(self) -> OSError:
        return syscalls.failure(f"map {self.name}")

    def _batches(self) -> Iterator[bytes]:
        """Reads whole buckets, so that concurrent changes neither repeat nor hide what stays."""
        size = self.info.key_size
        keys = ctypes.create_string_buffer(BATCH * size)
        values = ctypes.create_string_buffer(BATCH * self.info.value_size)
        position = ctypes.create_string_buffer(max(size, 4))
        start, more = 0, True
        while more:
            attributes = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ",
                    *(start, ctypes.addressof(position), ctypes.addressof(keys), ctypes.addressof(values)),
                    *(BATCH, self.descriptor, 0, 0),
                )
            )
            result = syscalls.libc.syscall(syscalls.BPF, syscalls.MAP_LOOKUP_BATCH, attributes, 56)
            more = result == 0
            if not more and ctypes.get_errno() != errno.ENOENT:
                raise self._failure()
            count = struct.unpack_from("=I", attributes.raw, 32)[0]
            yield from (keys.raw[index * size : (index + 1) * size] for index in range(count))
            start = ctypes.addressof(position)

    def _walk(self) -> Iterator[bytes]:
        """Key after key, for map types without batches. A deleted key restarts the kernel's walk, hence the set."""
        following = ctypes.create_string_buffer(self.info.key_size)
        element = syscalls.MapElement(self.descriptor, 0, ctypes.addressof(following), 0)
        seen: set[bytes] = set()
        while syscalls.libc.syscall(syscalls.BPF, syscalls.MAP_NEXT_KEY, ctypes.byref(element), 32) == 0:
            key = following.raw
            if key not in seen:
                seen.add(key)
                yield key
            elif len(seen) > self.info.entries:
                return
            self._key.raw = key
            element.key = ctypes.addressof(self._key)
        if ctypes.get_errno() != errno.ENOENT:
            raise self._failure()
