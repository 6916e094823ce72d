"""Runs of the CNI plugin's stub, as a runtime executes it: variables, stdin, and what it says."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUBS = Path(__file__).parents[2] / "src/ackward/node/stub"
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "mac": "0a:58:0a:f4:01:11", "sandbox": "/run/netns/pod"}],
    "ips": [{"address": "10.244.1.17/16", "gateway": "10.244.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {},
}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


@dataclass(frozen=True)
class Run:
    """What a run left: exit code, stdout, stderr."""

    code: int
    out: bytes
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """The error object; fails if it is none."""
        assert self.code == 1
        found = json.loads(self.out)
        assert found.keys() == {"cniVersion", "code", "msg", "details"}, found
        assert isinstance(found["code"], int)
        assert found["msg"]
        return found


def stub(machine: str = platform.machine()) -> list[str]:
    """The command that runs the stub that was built for ``machine``."""
    path = str(STUBS / f"ackward-cni-{machine}")
    return [path] if machine == platform.machine() else [f"qemu-{machine}-static", path]


def configuration(socket: Path, annotations: Mapping[str, str] | None = None, **more: object) -> bytes:
    """A network configuration as a runtime writes it; a member that is ``...`` is left out."""
    found: dict[str, object] = {
        "cniVersion": "1.0.0",
        "name": "podnet",
        "type": "ackward-cni",
        "capabilities": {ANNOTATIONS: True},
        "agentSocket": str(socket),
        "prevResult": RESULT,
    }
    if annotations is not None:
        found["runtimeConfig"] = {ANNOTATIONS: dict(annotations)}
    found |= more
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def run(
    command: str,
    stdin: bytes,
    *,
    container: str = "0123abcd",
    netns: str = "/proc/self/ns/net",
    ifname: str = "eth0",
    argv: list[str] | None = None,
    **variables: str,
) -> Run:
    """Execute the stub; it must end by itself within seconds."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": netns,
        "CNI_IFNAME": ifname,
        "CNI_PATH": "/opt/cni/bin",
        **variables,
    }
    done = subprocess.run(
        argv or stub(), input=stdin, env=environment, capture_output=True, timeout=20, check=False
    )
    return Run(done.returncode, done.stdout, done.stderr.decode())
