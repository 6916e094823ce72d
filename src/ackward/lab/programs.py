"""Programs in the lab's hosts, above all its own: modules that run until the end, and say ``ready`` on stdout.

Law: none outlives the lab, however that ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace, command_inside

#: The next step where a program says itself what is wrong.
AGAIN = "remove the cause that it names, and run this again; without one, on a quieter machine"


def inside(host: Namespace, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in ``host``, killed by the kernel when the thread that started it ends.

    Children of its own are not (prctl(2), PR_SET_PDEATHSIG): ``undo --all`` ends them with the host.
    """
    return command_inside(host, ["setpriv", "--pdeathsig", "KILL", "--", *argv])


def command(module: str, *arguments: str) -> list[str]:
    """The command line of such a program."""
    return [sys.executable, "-m", module, *arguments]


def start(host: Namespace, module: str, *arguments: str) -> subprocess.Popen[str]:
    """``python -m MODULE ...`` in ``host``, its output for the caller to read; it is the caller's to end."""
    return subprocess.Popen(
        inside(host, command(module, *arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What it prints on stdout and stderr until it ends; killed if it takes longer, or if anything goes wrong here."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()
    finally:
        process.kill()


@contextmanager
def ready(
    host: Namespace, module: str, *arguments: str, name: str, consequence: str, next_step: str = AGAIN
) -> Iterator[None]:
    """The same, once it is ready, until the end. Raises :class:`Unavailable` with ``name`` and its complaint."""
    process = start(host, module, *arguments)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            process.kill()
            raise Unavailable(
                f"{name} did not start: {process.communicate()[1].strip()}",
                consequence=consequence,
                next_step=next_step,
            )
        yield
    finally:
        process.kill()
        process.communicate()
