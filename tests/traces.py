"""What a test run must not leave behind: the machine stays as it was found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.polling import eventually

from ackward.gateway import control
from ackward.kernel import directories
from ackward.kernel.background import start_time_of
from ackward.kernel.bpffs import OURS
from ackward.kernel.namespaces import in_sight
from ackward.kernel.probes import cgroup2_mount
from ackward.remedies.bypass import capabilities
from ackward.remedies.receipts import DIRECTORY

#: In the environment of all that a run starts; what gives its children another one names a file of the run.
_MARK = f"ACKWARD_TEST_RUN={os.getpid()}"
#: Seconds that what was told to end may take.
_PATIENCE = 10.0


def _namespaces() -> set[str]:
    return {namespace.name for namespace in in_sight() if namespace.name.startswith("ackward-")}


def _cgroups() -> set[str]:
    return {str(path) for path in cgroup2_mount().glob(f"ackward-*{os.getpid()}*")}


def _processes(files: Path) -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            ours = _MARK.encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is not ours to see
        if (ours or os.fsencode(files) in command) and start_time_of(int(entry.name)) is not None:
            found.add(f"{entry.name}: {os.fsdecode(command).replace(chr(0), ' ')}")
    return found


def _is_left(path: Path) -> bool:
    """A file or an empty directory; what the self-test of the bypass found is kept for this boot."""
    return path.exists() and path != capabilities.path() and not (path.is_dir() and any(path.iterdir()))


def _of_the_machine() -> set[str]:
    """What nobody else may change meanwhile, if it is to be compared: so it is looked at on CI alone."""
    found = {
        f"{path}" for place in (DIRECTORY, OURS) for path in (place, *place.rglob("*")) if _is_left(path)
    }
    found |= {f"link {device.name}" for device in Path("/sys/class/net").iterdir()}
    for command in (["ip", "rule"], ["ip", "-6", "rule"], ["nft", "list", "tables"]):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found |= {f"{' '.join(command)}: {line}" for line in done.stdout.splitlines()}
    return found


def _traces(files: Path) -> set[str]:
    names = _namespaces()
    if os.environ.get("CI"):
        return names | _cgroups() | _processes(files) | _of_the_machine()
    # Others may be at work: a namespace of ours carries the PID of its maker.
    return {name for name in names if f"-{os.getpid()}-" in name} | _cgroups() | _processes(files)


@pytest.fixture(autouse=True, scope="session")
def leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No namespace, cgroup, pin, process, rule or file of ours is there at the end that was not at the beginning."""
    if os.geteuid() != 0:
        yield
        return
    files = tmp_path_factory.getbasetemp()
    os.environ.update([_MARK.split("=")])
    before = _traces(files)
    yield
    control.clear()  # what killed gateways left goes with the next start of any; there is none here
    directories.leave(control.DIRECTORY, control.DIRECTORY.parent)
    assert eventually(lambda: not _traces(files) - before, within=_PATIENCE), (
        f"left behind: {sorted(_traces(files) - before)}"
    )
