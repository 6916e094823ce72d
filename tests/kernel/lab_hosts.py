"""Running programs on the lab's hosts for tests: real processes in real namespaces, ended in LIFO order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ackward.kernel.namespaces import Namespace, command_inside

ACKWARD = str(Path(sys.executable).with_name("ackward"))


def ackward(*arguments: str, timeout: float = 120, **options) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    return subprocess.run(
        [ACKWARD, *arguments], capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def ackward_json(*arguments: str, code: int = 0) -> dict:
    """Run the real command line with --json and give back what it printed."""
    done = ackward(*arguments, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


@contextmanager
def program(host: Namespace, argv: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process inside a namespace, ended at the end."""
    process = subprocess.Popen(
        command_inside(host, list(argv)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def python(host: Namespace, script: str) -> Iterator[subprocess.Popen[str]]:
    """A Python script inside a namespace; it prints `ready` before anything else."""
    with program(host, [sys.executable, "-c", script]) as process:
        line = process.stdout.readline()
        assert line == "ready\n", (line, process.stderr.read())
        yield process
