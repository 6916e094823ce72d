"""A thin door to libbpf: open a CO-RE object, set its settings, load it, attach it, reach its maps.

libbpf is the reference loader; no Python binding is mature, so this calls its C API through ctypes. The bundled
library of the wheel is preferred, the system's is used otherwise (1.0 or newer: symbols are checked, not versions).
"""

from __future__ import annotations

import ctypes as c
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import AckwardError, PrivilegeMissing, ProgramRejected, Unavailable

_POINTER = c.c_void_p
_PRINT = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, c.c_void_p)
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "libbpf_set_print": (_POINTER, [_PRINT]),
    "bpf_object__open_file": (_POINTER, [c.c_char_p, _POINTER]),
    "bpf_object__load": (c.c_int, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__find_program_by_name": (_POINTER, [_POINTER, c.c_char_p]),
    "bpf_object__next_program": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__find_map_by_name": (_POINTER, [_POINTER, c.c_char_p]),
    "bpf_program__name": (c.c_char_p, [_POINTER]),
    "bpf_program__fd": (c.c_int, [_POINTER]),
    "bpf_program__set_autoload": (c.c_int, [_POINTER, c.c_bool]),
    "bpf_program__attach": (_POINTER, [_POINTER]),
    "bpf_program__attach_cgroup": (_POINTER, [_POINTER, c.c_int]),
    "bpf_prog_attach": (c.c_int, [c.c_int, c.c_int, c.c_int, c.c_uint]),
    "bpf_link__destroy": (c.c_int, [_POINTER]),
    "bpf_map__fd": (c.c_int, [_POINTER]),
    "bpf_map__key_size": (c.c_uint32, [_POINTER]),
    "bpf_map__value_size": (c.c_uint32, [_POINTER]),
    "bpf_map__max_entries": (c.c_uint32, [_POINTER]),
    "bpf_map__set_max_entries": (c.c_int, [_POINTER, c.c_uint32]),
    "bpf_map__set_initial_value": (c.c_int, [_POINTER, c.c_char_p, c.c_size_t]),
    "bpf_map_lookup_elem": (c.c_int, [c.c_int, _POINTER, _POINTER]),
    "bpf_map_update_elem": (c.c_int, [c.c_int, _POINTER, _POINTER, c.c_uint64]),
    "bpf_map_get_next_key": (c.c_int, [c.c_int, _POINTER, _POINTER]),
}
BUNDLED = Path(__file__).parent / "lib" / "libbpf.so.1"


@functools.cache
def library() -> c.CDLL:
    """The loaded libbpf. Raises :class:`Unavailable` if there is none, or one too old."""
    for candidate in (str(BUNDLED), "libbpf.so.1"):
        try:
            loaded = c.CDLL(candidate, use_errno=True)
            break
        except OSError:
            continue
    else:
        raise Unavailable(
            "libbpf.so.1 is not on this machine and this installation carries none",
            consequence="nothing can be watched live; `ackward doctor` shows what still works",
            next_step="apt-get install libbpf1 (or libbpf on other distributions)",
        )
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(loaded, name)
        except AttributeError as error:
            raise Unavailable(
                f"this libbpf has no {name}",
                consequence="nothing can be watched live",
                next_step="install libbpf 1.0 or newer",
            ) from error
        function.restype, function.argtypes = result, arguments
    return loaded


class _Log:
    """Collects what libbpf says, so that a refusal can quote it and silence stays silent."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        libc = c.CDLL(None)
        libc.vsnprintf.argtypes = [c.c_char_p, c.c_size_t, c.c_char_p, c.c_void_p]

        def say(_level: int, template: bytes, arguments: int) -> int:
            buffer = c.create_string_buffer(1 << 16)
            libc.vsnprintf(buffer, len(buffer), template, arguments)
            self.lines.append(buffer.value.decode(errors="replace").rstrip())
            return 0

        # libbpf keeps the pointer: the callback must live as long as this object.
        self.callback = _PRINT(say)

    def text(self) -> str:
        return "\n".join(self.lines)


class Map:
    """One map of a loaded object. Keys and values are bytes of the sizes that the object declares."""

    def __init__(self, handle: int) -> None:
        lib = library()
        self.fd: int = lib.bpf_map__fd(handle)
        self.key_size: int = lib.bpf_map__key_size(handle)
        self.value_size: int = lib.bpf_map__value_size(handle)
        self.max_entries: int = lib.bpf_map__max_entries(handle)

    def get(self, key: bytes) -> bytes | None:
        """The value at ``key``, or None."""
        value = c.create_string_buffer(self.value_size)
        if library().bpf_map_lookup_elem(self.fd, key, value) != 0:
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Set ``key`` to ``value``."""
        assert len(key) == self.key_size
        assert len(value) == self.value_size
        if library().bpf_map_update_elem(self.fd, key, value, 0) != 0:
            number = c.get_errno()
            raise OSError(number, os.strerror(number), "bpf map")

    def keys(self) -> Iterator[bytes]:
        """All keys. Only meaningful while nothing inserts or deletes (detach first)."""
        key, following = None, c.create_string_buffer(self.key_size)
        while library().bpf_map_get_next_key(self.fd, key, following) == 0:
            key = c.create_string_buffer(following.raw, self.key_size)
            yield key.raw

    def values(self) -> bytes:
        """All values, one after the other. Detach first, as for :meth:`keys`."""
        return b"".join(value for key in self.keys() if (value := self.get(key)) is not None)


class Object:
    """A BPF object file, opened, then loaded, then attached; closing undoes all of it."""

    def __init__(self, path: Path, *, purpose: str) -> None:
        """Open ``path``. ``purpose`` completes the sentence of an error: "... cannot be watched"."""
        self.path, self.purpose = path, purpose
        self._lib = library()
        self._log = _Log()
        self._lib.libbpf_set_print(self._log.callback)
        self._links: list[int] = []
        if not path.exists():
            raise Unavailable(
                f"the compiled program {path.name} is missing from this installation",
                consequence=purpose,
                next_step="run `make` in the source tree, or install a wheel",
            )
        self._handle: int | None = self._lib.bpf_object__open_file(str(path).encode(), None)
        if not self._handle:
            raise self._refusal("opened", c.get_errno())

    def _refusal(self, verb: str, number: int) -> AckwardError:
        if number in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            return PrivilegeMissing.for_this_command(
                "loading BPF programs needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)",
                consequence=self.purpose,
            )
        if not Path("/sys/kernel/btf/vmlinux").exists():
            return Unavailable(
                "this kernel has no BTF (/sys/kernel/btf/vmlinux)",
                consequence=self.purpose,
                next_step="use a kernel with CONFIG_DEBUG_INFO_BTF, or `ackward analyze` on a capture",
            )
        return ProgramRejected(
            f"{self.path.name} could not be {verb}: {os.strerror(number)}",
            log=self._log.text(),
            consequence=self.purpose,
            next_step="run `ackward doctor` to see what this kernel allows",
        )

    def _find(self, function: str, name: str) -> int:
        found: int | None = getattr(self._lib, function)(self._handle, name.encode())
        if not found:
            raise KeyError(f"{self.path.name} has no {name}")
        return found

    def set_section(self, section: str, value: bytes) -> None:
        """Set the initial bytes of a data section (``.rodata``), before loading."""
        handle = self._find("bpf_object__find_map_by_name", section)
        if self._lib.bpf_map__set_initial_value(handle, value, len(value)) != 0:
            raise ValueError(
                f"{section} of {self.path.name} holds {self._lib.bpf_map__value_size(handle)} bytes, not {len(value)}"
            )

    def resize(self, name: str, max_entries: int) -> None:
        """Give a map another size, before loading."""
        if (
            self._lib.bpf_map__set_max_entries(self._find("bpf_object__find_map_by_name", name), max_entries)
            != 0
        ):
            raise ValueError(f"{name} cannot have {max_entries} entries")

    def leave_out(self, program: str) -> None:
        """Do not load ``program``: this kernel lacks what it hooks."""
        handle = self._find("bpf_object__find_program_by_name", program)
        self._lib.bpf_program__set_autoload(handle, c.c_bool())

    def load(self) -> None:
        """Load all programs, or none."""
        if self._lib.bpf_object__load(self._handle) != 0:
            raise self._refusal("loaded", c.get_errno())

    def attach(self, program: str) -> None:
        """Attach a program to the place that its section names (a tracepoint)."""
        self._keep(
            self._lib.bpf_program__attach(self._find("bpf_object__find_program_by_name", program)), program
        )

    def attach_cgroup(self, program: str, cgroup: Path) -> None:
        """Attach a program to a cgroup of the v2 hierarchy, beside what others attached."""
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link = self._lib.bpf_program__attach_cgroup(
                self._find("bpf_object__find_program_by_name", program), descriptor
            )
        finally:
            os.close(descriptor)
        self._keep(link, program)

    def _keep(self, link: int | None, program: str) -> None:
        if not link:
            raise self._refusal(f"attached ({program})", c.get_errno())
        self._links.append(link)

    def program_fd(self, program: str) -> int:
        """The descriptor of a loaded program; it stays the object's."""
        return int(self._lib.bpf_program__fd(self._find("bpf_object__find_program_by_name", program)))

    def map(self, name: str) -> Map:
        """A map of the loaded object, by its name or its section (``.bss``)."""
        return Map(self._find("bpf_object__find_map_by_name", name))

    def detach(self) -> None:
        """Take all programs off their hooks; maps stay readable."""
        while self._links:
            self._lib.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        if self._handle:
            self._lib.bpf_object__close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
