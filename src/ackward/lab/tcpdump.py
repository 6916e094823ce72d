"""tcpdump on one of the lab's hosts, from the first segment to the last."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace
from ackward.lab import programs

#: tcpdump keeps the headers and little else; "orig_len" still tells the length on the wire.
SNAPLEN = 128


@contextmanager
def tcpdump(host: Namespace, interface: str, path: Path, port: int) -> Iterator[None]:
    """Runs tcpdump in ``host``; at the end it has written every segment that was there by then into ``path``."""
    if not shutil.which("tcpdump"):
        raise Unavailable(
            "tcpdump is not installed", consequence="nothing was run", next_step="apt-get install tcpdump"
        )
    # -Z: without it tcpdump gives up root before it opens the file, and may then not write it.
    command = ["tcpdump", "-i", interface, "-n", "-U", "-s", str(SNAPLEN), "-B", "4096", "--immediate-mode"]
    command += ["--time-stamp-precision=nano", "-Z", "root", "-w", str(path), f"tcp port {port}"]
    process = subprocess.Popen(programs.inside(host, command), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        while line and "listening on" not in line:
            line = process.stderr.readline()
        if not line:
            raise Unavailable(
                "tcpdump did not start",
                consequence="nothing was captured",
                next_step="see what `tcpdump -i lo -c 1` says as root",
            )
        yield
        _wait_until_quiet(path)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    finally:
        process.kill()
        process.communicate()


def _wait_until_quiet(path: Path) -> None:
    """Until nothing was written for a quarter of a second: the last FINs are on their way when the load has ended."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < 0.25:
        if path.stat().st_size != size:
            size, since = path.stat().st_size, time.monotonic()
        time.sleep(0.02)
