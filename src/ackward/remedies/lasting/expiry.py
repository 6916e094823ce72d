"""Takes a remedy back whose lease is over: ``python -m ackward.remedies.lasting.expiry RECEIPT-FILE``.

What it did is one line on stderr: systemd puts it into the journal, a holder into its log. Exit code 0: there is
nothing left to do, now or later.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from ackward import remedies
from ackward.errors import AckwardError, UnknownName
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Occasion


def expire(receipt: Path) -> tuple[str, bool]:
    """End the remedy if its time is up. Gives what happened in words, and whether it must be tried again."""
    store, name = Receipts(receipt.parent), receipt.stem
    try:
        found = store.get(name)
        outcome = remedies.load(found.remedy).undo(found, store, Occasion.LEASE_OVER)
    except UnknownName:
        return f"{name}: undone before its lease was over", False
    except AckwardError as error:
        return f"{name}: its lease is over, but it could not be taken back: {error}", True
    if outcome.failed:
        return f"{name}: its lease is over, but not all could be taken back: {outcome.words}", True
    return f"{name}: {outcome.words}", False


def main(arguments: list[str]) -> int:
    """The process; gives its exit code."""
    words, again = expire(Path(arguments[0]))
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    sys.stderr.write(f"{now} ackward: {words}\n")
    return 1 if again else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
