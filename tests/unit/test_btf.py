"""BTF: what the reader finds, in which bytes, and that damaged bytes end in one clear error."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.errors import Unavailable
from ackward.kernel.btf import (
    VMLINUX,
    Btf,
    FieldLayout,
    Kind,
    elf_section,
    kernel_btf,
    numpy_layout,
    object_btf,
)

ROOT = Path(__file__).resolve().parents[2]
SIGNED = 1


class Writer:
    """Writes BTF by hand, so that each case states its bytes; ids count from 1 as in the format."""

    def __init__(self, order: str = "<") -> None:
        self.order, self.types, self.strings, self.count = order, b"", b"\0", 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind: Kind, name: str, third: int, *tail: int, vlen: int = 0, flag: int = 0) -> int:
        words = (self.name(name), flag << 31 | kind << 24 | vlen, third, *tail)
        self.types += struct.pack(f"{self.order}{len(words)}I", *words)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, encoding: int = 0) -> int:
        return self.add(Kind.INT, name, size, encoding << 24 | size * 8)

    def array(self, element: int, count: int) -> int:
        return self.add(Kind.ARRAY, "", 0, element, 1, count)

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int], flag: int = 0, kind: Kind = Kind.STRUCT
    ) -> int:
        tail = [word for member, type_id, offset in members for word in (self.name(member), type_id, offset)]
        return self.add(kind, name, size, *tail, vlen=len(members), flag=flag)

    def data(self) -> bytes:
        lengths = (24, 0, len(self.types), len(self.types), len(self.strings))
        return struct.pack(f"{self.order}HBBIIIII", 0xEB9F, 1, 0, *lengths) + self.types + self.strings


def socket_like(order: str = "<") -> bytes:
    """The shapes that the kernel's sockets use: bitfields, anonymous unions, nested structs, typedefs."""
    writer = Writer(order)
    u32 = writer.integer("unsigned int", 4)
    u16 = writer.add(Kind.TYPEDEF, "u16", writer.integer("short unsigned int", 2))
    qualified = writer.add(Kind.CONST, "", writer.add(Kind.VOLATILE, "", u16))
    ports = writer.struct("", 4, ("dport", qualified, 0), ("num", u16, 16))
    pair = writer.struct("", 4, ("portpair", u32, 0), ("", ports, 0), kind=Kind.UNION)
    ack = writer.struct(
        "", 8, ("pending", u32, 0), ("ato", u32, 8 << 24 | 32), ("quick", u32, 1 << 24 | 40), flag=1
    )
    writer.struct("sock", 16, ("before", u32, 0), ("", pair, 32), ("ack", ack, 64))
    writer.add(Kind.FUNCTION, "tcp_rcv", 0)
    writer.add(Kind.FORWARD, "elsewhere", 0)
    return writer.data()


@pytest.mark.parametrize("order", ["<", ">"])
def test_finds_members_through_anonymous_unions_structs_and_typedefs(order: str) -> None:
    btf = Btf(socket_like(order), "made by hand")
    number = btf.field("sock", "num")
    assert number is not None
    assert (number.bit_offset, number.bit_size, number.type.name) == (48, 16, "short unsigned int")
    port = btf.field("sock", "dport")
    assert port is not None
    assert (port.bit_offset, port.type.kind) == (32, Kind.INT)


def test_bitfields_carry_their_width_and_absolute_offset() -> None:
    btf = Btf(socket_like(), "made by hand")
    ato, quick, pending = (btf.field("sock", f"ack.{name}") for name in ("ato", "quick", "pending"))
    assert ato
    assert quick
    assert pending
    assert (ato.bit_offset, ato.bit_size, ato.is_bitfield) == (96, 8, True)
    assert (quick.bit_offset, quick.bit_size, quick.is_bitfield) == (104, 1, True)
    assert (pending.bit_offset, pending.bit_size, pending.is_bitfield) == (64, 32, False)


@pytest.mark.parametrize("path", ["ack.nothing", "nothing", "before.inside", "", "ack.", "ack.ato.deeper"])
def test_an_absent_field_is_none(path: str) -> None:
    assert Btf(socket_like(), "made by hand").field("sock", path) is None


@pytest.mark.parametrize("name", ["soc", "ock", "elsewhere", "tcp_rcv", "", "before"])
def test_only_a_whole_name_of_a_struct_is_a_struct(name: str) -> None:
    btf = Btf(socket_like(), "made by hand")
    assert btf.struct(name) is None
    assert btf.field(name, "before") is None


def test_functions_have_their_own_names() -> None:
    btf = Btf(socket_like(), "made by hand")
    assert btf.function_id("tcp_rcv") is not None
    assert btf.function_id("sock") is None


def test_layout_of_a_flat_struct() -> None:
    writer = Writer()
    u8, u64 = writer.integer("unsigned char", 1), writer.integer("unsigned long", 8)
    i32, char = writer.integer("int", 4, SIGNED), writer.integer("char", 1, SIGNED)
    color = writer.add(Kind.ENUM, "color", 4)
    members = [("time", u64, 0), ("delta", i32, 64), ("color", color, 96)]
    members += [("address", writer.array(u8, 16), 128), ("command", writer.array(char, 16), 256)]
    writer.struct("event", 48, *members)
    assert numpy_layout(Btf(writer.data(), "made by hand"), "event") == [
        FieldLayout("time", "u8", 0),
        FieldLayout("delta", "i4", 8),
        FieldLayout("color", "u4", 12),
        FieldLayout("address", "u1", 16, (16,)),
        FieldLayout("command", "S16", 32),
    ]


def test_what_numpy_cannot_decode_is_refused_by_the_name_of_the_member() -> None:
    with pytest.raises(
        Unavailable, match=r"struct sock is no plain record: its member \(anonymous\) is a union"
    ):
        numpy_layout(Btf(socket_like(), "made by hand"), "sock")


def test_a_struct_that_clang_dropped_is_refused_with_the_way_to_keep_it() -> None:
    with pytest.raises(
        Unavailable, match=r"no type information about struct gone.*Next: give a global variable"
    ):
        numpy_layout(Btf(socket_like(), "made by hand"), "gone")


def test_every_truncation_is_refused() -> None:
    whole = socket_like()
    for length in range(len(whole)):
        with pytest.raises(Unavailable, match="is damaged"):
            Btf(whole[:length], "cut")


def test_types_that_refer_to_themselves_are_refused() -> None:
    writer = Writer()
    writer.add(Kind.TYPEDEF, "loop", 1)
    writer.struct("looping", 4, ("member", 1, 0))
    btf = Btf(writer.data(), "made by hand")
    with pytest.raises(Unavailable, match="refers to itself"):
        btf.struct("looping")
    writer = Writer()
    writer.array(1, 2)
    writer.struct("nesting", 4, ("member", 1, 0))
    with pytest.raises(Unavailable, match="nest without end"):
        Btf(writer.data(), "made by hand").struct("nesting")


def test_a_struct_inside_itself_ends() -> None:
    writer = Writer()
    writer.struct("eternal", 4, ("", 1, 0))
    assert Btf(writer.data(), "made by hand").field("eternal", "member") is None


def explore(btf: Btf) -> None:
    """All that a caller may ask."""
    btf.function_id("tcp_rcv")
    btf.struct("sock")
    for path in ("num", "ack.quick", "before", "nothing"):
        btf.field("sock", path)
    numpy_layout(btf, "sock")


@given(st.data())
def test_hostile_bytes_end_in_our_error_or_in_an_answer(data: st.DataObject) -> None:
    whole = bytearray(socket_like())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(Unavailable):  # any other exception is the fault that this test looks for
        explore(Btf(bytes(whole[:cut]) if data.draw(st.booleans()) else bytes(whole), "hostile"))


@given(st.binary(max_size=200))
def test_noise_is_no_object(noise: bytes) -> None:
    for data in (noise, b"\x7fELF\x02\x01" + noise):
        with pytest.raises(Unavailable, match="is not a BPF object"):
            elf_section(data, ".BTF", "noise")


# What follows meets a real compiler and a real kernel.

SOURCE = """
typedef unsigned char u8;
typedef unsigned int u32;
struct sample {
  unsigned long long time_ns; u32 flow; unsigned short mss; u8 kind; u8 address[5]; char command[12];
};
struct sample kept;
struct holder { struct sample samples[3]; u32 last[2][2]; struct sample one; };
struct holder holding;
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("clang") is None:
        pytest.skip("clang is missing")
    folder = tmp_path_factory.mktemp("btf")
    (folder / "sample.c").write_text(SOURCE)
    command = ["clang", "-target", "bpf", "-g", "-O2", "-c", "sample.c", "-o", "sample.o"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "sample.o"


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts/generate_event_layout.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated_layout", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_layout_decodes_what_the_compiler_laid_out(compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "layout.py"
    places = ["--object", str(compiled), "--output", str(output)]
    assert generate("sample", *places).returncode == 0
    dtype = imported(output).SAMPLE
    record = struct.pack("=QIHB5s12s", 1 << 40, 7, 1448, 3, b"\1\2\3\4\5", b"nginx")
    assert dtype.itemsize == len(record) == 32
    row = np.frombuffer(record, dtype)[0]
    assert (row["time_ns"], row["flow"], row["mss"], row["kind"]) == (1 << 40, 7, 1448, 3)
    assert row["address"].tolist() == [1, 2, 3, 4, 5]
    assert row["command"] == b"nginx"


def test_nested_structs_are_generated_before_what_holds_them(compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "layout.py"
    assert generate("holder", "sample", "--object", str(compiled), "--output", str(output)).returncode == 0
    assert output.read_text().count("SAMPLE: np.dtype") == 1
    row = np.zeros((), imported(output).HOLDER)
    assert row["samples"].shape == (3,)
    assert row["last"].shape == (2, 2)
    assert row["one"]["address"].shape == (5,)
    assert row.dtype.itemsize == 3 * 32 + 16 + 32


def test_check_tells_a_stale_layout_from_a_fresh_one(compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "layout.py"
    places = ["--object", str(compiled), "--output", str(output)]
    missing = generate("--check", "sample", *places)
    assert missing.returncode == 1
    assert generate("sample", *places).returncode == 0
    assert generate("--check", "sample", *places).returncode == 0
    output.write_text(output.read_text().replace("u4", "u2"))
    stale = generate("--check", "sample", *places)
    assert stale.returncode == 1
    assert "does not match" in stale.stderr
    assert f"Next: run `scripts/generate_event_layout.py sample {' '.join(places)}`" in stale.stderr


def test_a_struct_of_two_objects_is_written_once_and_must_be_the_same(compiled: Path, tmp_path: Path) -> None:
    generator = imported(ROOT / "scripts/generate_event_layout.py")
    first, second = tmp_path / "capture/first.py", tmp_path / "capture/second.py"
    written: dict[str, tuple[Path, str]] = {}
    assert "SAMPLE: np.dtype" in generator.module_text(compiled, first, ["sample"], written)
    sharing = generator.module_text(compiled, second, ["holder"], written)
    assert "from ackward.capture.first import SAMPLE\n" in sharing
    assert "SAMPLE: np.dtype" not in sharing
    assert "HOLDER: np.dtype" in sharing
    home, text = written["sample"]
    written["sample"] = home, text.replace("u8", "u4")
    with pytest.raises(Unavailable, match=r"struct sample of sample.o is not laid out as .* first.py"):
        generator.module_text(compiled, second, ["holder"], written)


def test_the_generated_layout_needs_no_formatting(compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "layout.py"
    assert generate("sample", "--object", str(compiled), "--output", str(output)).returncode == 0
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--check",
        "--config",
        str(ROOT / "pyproject.toml"),
        str(output),
    ]
    assert (
        subprocess.run(ruff, capture_output=True, text=True, check=False).stdout
        == "1 file already formatted\n"
    )


def test_an_object_that_is_missing_is_named(tmp_path: Path) -> None:
    outcome = generate(
        "sample", "--object", str(tmp_path / "gone.o"), "--output", str(tmp_path / "layout.py")
    )
    assert outcome.returncode == 3
    assert f"{tmp_path}/gone.o cannot be read" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_truncated_objects_are_refused(compiled: Path, tmp_path: Path) -> None:
    whole = compiled.read_bytes()
    cut = tmp_path / "cut.o"
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        with pytest.raises(Unavailable, match=r"cut\.o"):
            object_btf(cut)


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_the_running_kernel_has_a_socket_we_know() -> None:
    btf = kernel_btf()
    state = btf.field("sock", "__sk_common.skc_state")
    assert state
    assert (state.bit_size, state.bit_offset % 8) == (8, 0)
    port = btf.field("tcp_sock", "inet_conn.icsk_inet.sk.__sk_common.skc_dport")
    assert port
    assert port.bit_size == 16
    pointer = btf.field("sock", "sk_prot_creator")
    assert pointer
    assert (pointer.type.kind, pointer.bit_size) == (Kind.POINTER, 64)
    assert btf.field("inet_connection_sock", "icsk_ack.never_was") is None
    assert btf.function_id("tcp_v4_rcv")
