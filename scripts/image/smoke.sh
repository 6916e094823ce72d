#!/usr/bin/env bash
# Tries what an image must be able to do, as far as that needs no privileges. Usage: smoke.sh PREFIX
set -euo pipefail
bin=${1:?usage: $0 PREFIX}/bin

"$bin/ackward" --version
"$bin/ackward" node agent --help >/dev/null
"$bin/ackward" fix quickack --help >/dev/null
ip -Version >/dev/null # the test pod runs it

"$bin/python" - <<'CODE'
"""Everything that was installed is there: dependencies of each module, BPF objects, libbpf, the CNI plugin."""
import importlib, json, pkgutil, platform, subprocess
from pathlib import Path

import ackward
from ackward.kernel.libbpf import Object

modules = [found.name for found in pkgutil.walk_packages(ackward.__path__, "ackward.")]
for name in modules:
    importlib.import_module(name)
root = Path(ackward.__file__).parent
programs = sorted(root.rglob("*.bpf.o"))
assert programs, "no BPF objects"
for program in programs:
    Object(program, purpose="nothing").close()
stub = root / "node" / "stub" / f"ackward-cni-{platform.machine()}"
asked = {"input": '{"cniVersion": "1.0.0"}', "env": {"CNI_COMMAND": "VERSION"}}
answer = subprocess.run([stub], **asked, capture_output=True, text=True, check=True).stdout
assert "1.0.0" in json.loads(answer)["supportedVersions"], answer
print(f"{len(modules)} modules, {len(programs)} BPF objects, {stub.name}")
CODE
