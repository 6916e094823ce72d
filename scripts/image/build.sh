#!/usr/bin/env bash
# Builds the wheel: Python, BPF objects, the CNI plugin, libbpf. PYTHON must have hatchling. Usage: build.sh DIRECTORY
set -euo pipefail
target=$(realpath -m "${1:?usage: $0 DIRECTORY}")
cd "$(dirname "$0")/../.."
"${PYTHON:-python3}" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$target" .
