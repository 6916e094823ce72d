"""Maps of sockets: which programs their members run, counters of each processor, and programs that are run once."""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Iterator
from pathlib import Path

from ackward.kernel.libbpf import library

#: enum bpf_attach_type (include/uapi/linux/bpf.h).
SK_MSG_VERDICT, SK_SKB_VERDICT = 7, 38

#: The shortest frame that BPF_PROG_TEST_RUN takes: an Ethernet header (bpf_test_init() in net/bpf/test_run.c).
_FRAME = bytes(14)


class _TestRun(c.Structure):
    """struct bpf_test_run_opts of libbpf (bpf/bpf.h)."""

    _fields_ = (
        ("size", c.c_size_t),
        ("data_in", c.c_char_p),
        ("data_out", c.c_void_p),
        ("data_size_in", c.c_uint32),
        ("data_size_out", c.c_uint32),
        ("context_in", c.c_void_p),
        ("context_out", c.c_void_p),
        ("context_size_in", c.c_uint32),
        ("context_size_out", c.c_uint32),
        ("result", c.c_uint32),
        ("repeat", c.c_int),
        ("duration", c.c_uint32),
        ("flags", c.c_uint32),
        ("cpu", c.c_uint32),
        ("batch_size", c.c_uint32),
    )


def _checked(outcome: int, doing: str) -> None:
    if outcome < 0:
        number = c.get_errno() or -outcome
        raise OSError(number, os.strerror(number), doing)


def attach(program: int, sockets: int, kind: int) -> None:
    """Let the members of a map of sockets (descriptors of both) run a program: those that join from now on."""
    _checked(library().bpf_prog_attach(program, sockets, kind, 0), "sock map")


def run_once(program: int, frame: bytes = _FRAME) -> int:
    """Run a program that takes packets on a frame; gives what it returned. Raises OSError where the kernel does not."""
    options = _TestRun(size=c.sizeof(_TestRun), data_in=frame, data_size_in=len(frame), repeat=1)
    _checked(library().bpf_prog_test_run_opts(program, c.byref(options)), "bpf test run")
    return int(options.result)


def possible_processors() -> int:
    """How many values an entry of a per-CPU map has (libbpf_num_possible_cpus())."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return max(int(part.rpartition("-")[2]) for part in text.strip().split(",")) + 1


def of_each_processor(table: int, size: int) -> list[bytes]:
    """Entry 0 of a per-CPU array, a value of ``size`` bytes (a multiple of 8) for each processor."""
    count = possible_processors()
    values = c.create_string_buffer(size * count)
    _checked(library().bpf_map_lookup_elem(table, bytes(4), values), "bpf map")
    return [values.raw[index * size : (index + 1) * size] for index in range(count)]


def entries(table: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a map; what comes and goes meanwhile may be missed, or seen twice."""
    key, following = None, c.create_string_buffer(key_size)
    value = c.create_string_buffer(value_size)
    while library().bpf_map_get_next_key(table, key, following) == 0:
        key = c.create_string_buffer(following.raw, key_size)
        if library().bpf_map_lookup_elem(table, key, value) == 0:
            yield key.raw, value.raw
