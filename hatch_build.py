"""Build hook: compiles each ``*.bpf.c`` to the CO-RE object beside it, and the CNI plugin; bundles libbpf into wheels.

A wheel needs no compiler: it carries the objects. A source build needs clang and libbpf's headers, but no
BTF of the running kernel: the programs are written against ``kernel/bpf/kernel_types.h``.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
PACKAGE = ROOT / "src" / "ackward"
HEADERS = PACKAGE / "kernel" / "bpf"
TARGET_ARCH = {"x86_64": "x86", "aarch64": "arm64"}
STUB = PACKAGE / "node" / "stub" / "ackward-cni.c"


def compile_bpf(source: Path) -> Path:
    """Compile one program; the object lands beside its source as ``NAME.bpf.o``."""
    target = source.with_suffix(".o")
    depends = [source, *HEADERS.glob("*.h"), *source.parent.glob("*.h")]
    if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in depends):
        return target
    clang = shutil.which("clang")
    if clang is None:
        raise SystemExit(
            "clang is missing: the BPF programs cannot be compiled. Next: run `make setup` (or: apt-get "
            "install clang libbpf-dev)."
        )
    arch = TARGET_ARCH.get(platform.machine(), platform.machine())
    # -mcpu=v3: atomics that return the old value; every kernel that we support (>= 5.12 for these) runs them.
    command = [
        clang, "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
        f"-D__TARGET_ARCH_{arch}", f"-I{HEADERS}", f"-I/usr/include/{platform.machine()}-linux-gnu",
        "-c", str(source), "-o", str(target),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    if strip := shutil.which("llvm-strip"):
        subprocess.run([strip, "-g", str(target)], check=True)
    return target


def compile_stub(machine: str) -> Path:
    """Compile the CNI plugin for ``machine``; it lands beside its source as ``ackward-cni-MACHINE``.

    It has no C library, so clang and lld on any machine build it for all.
    """
    target = STUB.with_name(f"ackward-cni-{machine}")
    newest = max(path.stat().st_mtime for path in [STUB, *STUB.parent.glob("*.h")])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    for tool in ("clang", "ld.lld"):
        if shutil.which(tool) is None:
            raise SystemExit(
                f"{tool} is missing: the CNI plugin cannot be compiled. Next: run `make setup` (or: apt-get install "
                "clang lld)."
            )
    command = [
        "clang", f"--target={machine}-linux-gnu", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror",
        "-ffreestanding", "-fno-stack-protector", "-nostdlib", "-static", "-fuse-ld=lld",
        "-Wl,-z,noexecstack", "-Wl,-s", "-o", str(target), str(STUB),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return target


def compile_everything() -> list[Path]:
    """The BPF programs, and the plugin for every machine that we know: gives the plugin's files."""
    for source in sorted(PACKAGE.rglob("*.bpf.c")):
        compile_bpf(source)
    return [compile_stub(machine) for machine in TARGET_ARCH]


def libbpf_path() -> Path | None:
    """The build machine's libbpf.so.1, if it has one."""
    for directory in (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/lib"):
        if (candidate := Path(directory) / "libbpf.so.1").exists():
            return candidate.resolve()
    return None


class BpfBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Compiles before the wheel (or the editable install) is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile all; in a wheel, add libbpf and mark the wheel as belonging to this platform."""
        stubs = compile_everything()
        build_data["artifacts"] += [str(stub.relative_to(ROOT)) for stub in stubs]
        if self.target_name == "wheel" and version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{platform.machine()}"
            if library := libbpf_path():
                build_data["force_include"][str(library)] = "ackward/kernel/lib/libbpf.so.1"


if __name__ == "__main__":
    compile_everything()
