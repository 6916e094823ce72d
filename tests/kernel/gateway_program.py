"""A gateway as a process of its own: settings and the directory of receipts in, one JSON object a line out.

``python gateway_program.py PICKLED-SETTINGS RECEIPTS`` answers each line on stdin: ``counters``, ``status``, ``drain``.
Connections that end, and legs that fail, are lines, too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import select
import sys
from pathlib import Path

from ackward.errors import AckwardError
from ackward.gateway.journal import stuck_line
from ackward.gateway.processes import Supervisor
from ackward.remedies.receipts import Receipts


def say(**what: object) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


class SayingHooks:
    """All is a line, and the allow-list is everything but port 9."""

    def permits(self, peer, wanted) -> bool:
        return wanted.destination[1] != 9

    def recount(self) -> None:
        pass

    def ended(self, record) -> None:
        say(ended=dataclasses.asdict(record))

    def stuck(self, record) -> None:
        say(stuck=stuck_line(record), went_on=record.went_on)

    def turned_away(self, listener, client, why) -> None:
        say(turned_away=f"{listener}: {why}")

    def leg_failed(self, failure) -> None:
        say(failed=str(failure.error), peer=failure.peer)


def main() -> int:
    settings = pickle.loads(bytes.fromhex(sys.argv[1]))
    try:
        receipts = Receipts(Path(sys.argv[2]))
        with Supervisor(settings, SayingHooks(), receipts, told=lambda words: say(lost=words)) as gateway:
            say(ready=gateway.pids)
            while not gateway.wait(0):
                ready, _, _ = select.select([0, *gateway.descriptors], [], [])
                if 0 not in ready:
                    continue
                line = os.read(0, 4096).decode()
                if not line:
                    return 0
                for word in line.split():
                    if word == "drain":
                        gateway.tell({"do": "drain"})
                    elif word == "counters":
                        say(counters=gateway.counters.as_dict())
                    else:
                        say(status=gateway.ask({"do": "status"}))
    except AckwardError as error:
        say(error=error.as_json())
        return error.exit_code
    say(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
