"""Apply and undo that are cut: in a process that is killed after one of its steps, or at any moment.

A program has imported everything and forks for each request, so a cut costs milliseconds and falls into the steps, not
into the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward import remedies
from ackward.kernel.systemd import Systemd
from ackward.model.plan import Lasting, Plan
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import UNTIL_UNDONE

_FAILED = 255


def request(
    plan: Plan | None,
    store: Receipts,
    *,
    last: int = 0,
    within: float | None = None,
    lasting: Lasting = UNTIL_UNDONE,
) -> str:
    """What the program is to do, in a line: apply the plan, or (none) undo the first receipt.

    It is killed after step ``last``, or after so many seconds.
    """
    return json.dumps(
        {
            "plan": plan and plan.model_dump_json(by_alias=True),
            "directory": str(store.directory),
            "root": str(store.systemd.root),
            "lasting": lasting.model_dump_json(),
            "last": last,
            "within": within,
        }
    )


#: Does what its input says, line by line; its words go to stderr.
COMMAND = [sys.executable, "-P", __file__]


class Stepper:
    """The program, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, line: str) -> int | None:
        """Do it; the number of steps if it came to its end, none if it was killed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        if code == -signal.SIGKILL:
            return None
        assert 0 <= code < _FAILED, "see stderr"
        return code


@contextmanager
def stepping() -> Iterator[Stepper]:
    """The program, until the end."""
    with subprocess.Popen(COMMAND, stdin=-1, stdout=-1, text=True) as process:
        yield Stepper(process)  # it ends with its input


def _steps(asked: dict[str, str]) -> Iterator[str]:
    store = Receipts(Path(asked["directory"]), Systemd(Path(asked["root"])))
    if asked["plan"] is None:
        (receipt,) = store.load().receipts
        return remedies.load(receipt.remedy).undo_steps(receipt, store)
    plan = Plan.model_validate_json(asked["plan"])
    return remedies.load(plan.remedy).apply_steps(plan, store, Lasting.model_validate_json(asked["lasting"]))


def _take(asked: dict[str, str], last: int) -> int:
    """Take all steps, or be killed after one of them; gives how many there were."""
    count = 0
    for _ in _steps(asked):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
    return count


def _serve() -> None:
    for name in remedies.NAMES:
        remedies.load(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            code = _FAILED
            try:
                code = _take(asked, asked["last"])
            except BaseException:  # noqa: BLE001 - told to who asked, in words and by the code
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], asked["within"])[0]:
            os.kill(child, signal.SIGKILL)
        os.close(handle)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
