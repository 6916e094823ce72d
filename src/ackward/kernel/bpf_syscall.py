"""The bpf(2) calls that the probes make, without libbpf: what a kernel refuses here is the kernel's own word.

Each function does the thing, undoes it at once and returns the kernel's errno, 0 if it agreed.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

#: __NR_bpf; glibc has no wrapper. asm-generic's number serves every machine that is not listed.
_SYSCALL = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(platform.machine(), 280)
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 5, 17  # enum bpf_cmd, include/uapi/linux/bpf.h
#: Longer than any command's part of union bpf_attr needs; the kernel asks that what it does not know be zero.
_ATTRIBUTES = 152
BPF_F_NO_PREALLOC = 1


class ProgramType(enum.IntEnum):
    """enum bpf_prog_type, as far as ackward uses it."""

    SCHED_CLS = 3
    CGROUP_SKB = 8
    SOCK_OPS = 13
    SK_SKB = 14
    SK_MSG = 16
    RAW_TRACEPOINT = 17
    TRACING = 26
    STRUCT_OPS = 27
    SK_LOOKUP = 30


class AttachType(enum.IntEnum):
    """enum bpf_attach_type (include/uapi/linux/bpf.h), as far as ackward uses it."""

    UNSPECIFIED = 0
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    SK_SKB_STREAM_VERDICT = 5
    SK_MSG_VERDICT = 7
    CGROUP_SETSOCKOPT = 22
    TRACE_FENTRY = 24
    SK_LOOKUP = 36


class MapType(enum.IntEnum):
    """enum bpf_map_type, as far as ackward uses it."""

    HASH = 1
    RINGBUF = 27


class RefusedError(OSError):
    """The kernel said no; ``errno`` says how."""


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    descriptor: int = libc.syscall(_SYSCALL, command, buffer, _ATTRIBUTES)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise RefusedError(number, os.strerror(number))
    return descriptor


@contextmanager
def _program(kind: ProgramType, attach: AttachType, function_id: int) -> Iterator[int]:
    # r0 = 1; exit (struct bpf_insn). 1 is every type's harmless answer: pass the packet, allow the call.
    code = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    instructions, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII",
        kind,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_),
        *(0, 0, 0),  # no verifier log
        *(0, 0),
        b"ackward_probe",
        0,
        attach,
        *(0, 0, 0, 0, 0, 0, 0),  # no BTF of our own
        function_id,
    )
    descriptor = _bpf(_PROG_LOAD, attributes)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def load_program(kind: ProgramType, attach: AttachType = AttachType.UNSPECIFIED, function_id: int = 0) -> int:
    """Load a program of two instructions and let it go. ``function_id``: the BTF id fentry attaches to."""
    try:
        with _program(kind, attach, function_id):
            return 0
    except RefusedError as error:
        return error.errno or errno.EIO


def attach_raw_tracepoint(name: str) -> int:
    """Attach a program of two instructions to a raw tracepoint and let it go."""
    label = ctypes.create_string_buffer(name.encode())
    try:
        with _program(ProgramType.RAW_TRACEPOINT, AttachType.UNSPECIFIED, 0) as program:
            os.close(_bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(label), program)))
            return 0
    except RefusedError as error:
        return error.errno or errno.EIO


def create_map(kind: MapType, key_size: int, value_size: int, entries: int, flags: int = 0) -> int:
    """Create a map and let it go. Sizes in bytes."""
    try:
        os.close(_bpf(_MAP_CREATE, struct.pack("=IIIII", kind, key_size, value_size, entries, flags)))
    except RefusedError as error:
        return error.errno or errno.EIO
    return 0
