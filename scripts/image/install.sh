#!/usr/bin/env bash
# Installs the wheel in a directory, and what it depends on, into a prefix of its own. Usage: install.sh DIRECTORY PREFIX
set -euo pipefail
usage="usage: $0 DIRECTORY PREFIX"
wheels=${1:?$usage} prefix=${2:?$usage}
python=${PYTHON:-python3}
"$python" -m venv --without-pip "$prefix"
# pip comes from outside, so that the image has none. It compiles to bytecode: a read-only image cannot do so later.
"$python" -m pip --python "$prefix/bin/python" install --quiet --no-input "$wheels"/ackward-*.whl
