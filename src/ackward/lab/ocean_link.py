"""The ocean's link: a process in the middle namespace that delays what goes from any host to any other.

``python -m ackward.lab.ocean_link LINES`` with, as JSON, for each NFQUEUE number its :class:`~ackward.lab.wan.Line`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from ackward.lab.delay_line import carry
from ackward.lab.wan import Line, Loss


def to_json(lines: Mapping[int, Line]) -> str:
    """For the command line."""
    return json.dumps({number: asdict(line) for number, line in lines.items()})


def main(arguments: list[str]) -> int:
    """Be the link until ended. Offloaded packets stay whole where nothing is lost."""
    lines = {
        int(number): Line(**{**line, "losses": tuple(Loss(**loss) for loss in line["losses"])})
        for number, line in json.loads(arguments[0]).items()
    }
    return carry(lines, whole=not any(line.losses for line in lines.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
