"""What joined sockets do to programs on this kernel, as the table of docs/bypass.md. Needs root; takes seconds.

python -m benchmarks.bypass_matrix [--write]
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from ackward.remedies.bypass.selftest.run import self_test
from ackward.report.capability_table import markdown

PAGE = Path(__file__).parent.parent / "docs" / "bypass.md"
BEGIN, END = "<!-- python -m benchmarks.bypass_matrix --write -->\n", "<!-- end -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/bypass.md instead of printing it")
    given = parser.parse_args()
    table = f"Linux {platform.release()}:\n\n{markdown(self_test())}"
    if not given.write:
        print(table)
        return 0
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
