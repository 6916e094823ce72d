"""How often the diagnosis of a capture is right: recall and precision per cause and grade, over the labelled corpus.

``python benchmarks/accuracy.py [DIRECTORY] [--json] [--files] [--make]`` reads NAME.client.pcap, NAME.server.pcap and
both together for each NAME.labels.json (made by ``ackward.lab.corpus``). The unit is the exchange: a label says which
rounds stalled and why, a finding says which exchanges and why. They are matched one by one, in order of time; where a
load makes several exchanges a round, the round's number tells.

right     stalled rounds with an exchange of a finding whose cause and ends the label names
excused   exchanges of a cause that the label allows beside its own, at no better a grade than it allows
wrong     all other exchanges of findings: another cause, wrong ends, or a round that did not stall. Of the label's
          cause in the warm-up nothing is claimed
missed    stalled rounds that no finding of the label's cause covers
recall    right / (right + missed)      precision    right / (right + wrong)

Causes that are no stalls (a program's own time) cannot be found, only wrongly replaced: their captures count for
precision alone. ``lost`` is a finding's median loss as a ratio to the median that the client measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ackward.diagnosis.claims import NO_END
from ackward.diagnosis.diagnose import Diagnosis
from ackward.diagnosis.partition import CAUSES
from ackward.lab.corpus import Labels, make_corpus
from ackward.model.causes import STALLS, Cause, Grade
from ackward.model.report import Finding
from ackward.model.segments import Vantage

CORPUS = Path(__file__).parent.parent / "tests" / "data" / "corpus"
VIEWS = {"client": ("client",), "server": ("server",), "both": ("client", "server")}
_RANK = {Grade.OBSERVED: 2, Grade.INFERRED: 1, Grade.UNKNOWN: 0}


@dataclass
class Count:
    """Exchanges, over everything judged so far."""

    right: int = 0
    excused: int = 0
    wrong: int = 0
    missed: int = 0
    losses: list[float] = field(default_factory=list)
    where_wrong: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float | None:
        """The part of the stalled rounds that was found."""
        return self.right / (self.right + self.missed) if self.right + self.missed else None

    @property
    def precision(self) -> float | None:
        """The part of what was found that is true."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None


Counts = dict[tuple[Cause, str], Count]


def corpus(directory: Path) -> Iterator[tuple[str, Labels]]:
    """Every pair of captures, by name."""
    for path in sorted(directory.glob("*.labels.json")):
        yield path.name.removesuffix(".labels.json"), Labels.model_validate_json(path.read_text())


def judge(seen: Diagnosis, labels: Labels, view: str, name: str, counts: Counts) -> None:
    """Add one diagnosis to the counts."""
    cause = labels.cause[view]
    stalled = [round_.lost_ns for round_ in labels.rounds if round_.stalled]
    wanted = {number for number, round_ in enumerate(labels.rounds) if round_.stalled and cause in STALLS}
    found: set[int] = set()
    where = f"{name} {view}"
    for finding in sorted(seen.brief.findings, key=lambda one: -one.exchanges):
        count = counts[finding.cause, finding.grade]
        if finding.cause == cause and _ends_right(finding, labels):
            rounds = [number for number in rounds_of(seen, finding, labels) if number >= 0]
            good = wanted.intersection(rounds) - found
            found |= good
            count.right += len(good)
            if len(good) < len(rounds):
                count.wrong += len(rounds) - len(good)
                count.where_wrong.append(f"{where}: {len(rounds) - len(good)} too many")
            if stalled:
                count.losses.append(finding.lost_ns.p50 / statistics.median(stalled))
        elif _excused(finding, labels):
            count.excused += finding.exchanges
        else:
            count.wrong += finding.exchanges
            count.where_wrong.append(
                f"{where}: {finding.exchanges} (held by {finding.holding_end}, delayed by {finding.delaying_end})"
            )
    if missed := wanted - found:
        count = counts[cause, "missed"]
        count.missed += len(missed)
        count.where_wrong.append(f"{where}: {len(missed)} of {len(wanted)}")


def rounds_of(seen: Diagnosis, finding: Finding, labels: Labels) -> list[int]:
    """The round of each exchange of a finding, from 0; those of the warm-up are negative."""
    parts, exchanges = seen.attribution.parts, seen.attribution.exchanges
    mine = parts.cause == CAUSES.index(finding.cause)
    for said, end in ((parts.holding, finding.holding_end), (parts.delaying, finding.delaying_end)):
        mine &= said == (NO_END if end is None else Vantage[end.name])
    place = np.argsort(np.argsort(exchanges.start, kind="stable"))
    a_round = exchanges.count / (labels.warmup + len(labels.rounds))
    numbers = place[np.unique(parts.exchange[mine])] // a_round - labels.warmup
    return [int(number) for number in numbers]


def _ends_right(finding: Finding, labels: Labels) -> bool:
    pairs = ((finding.holding_end, labels.holding_end), (finding.delaying_end, labels.delaying_end))
    return all(said is None or true is None or said == true for said, true in pairs)


def _excused(finding: Finding, labels: Labels) -> bool:
    if finding.cause == labels.cause["both"] and _ends_right(finding, labels):
        return True  # more than this end alone needs to tell, and true
    return any(
        finding.cause == excuse.cause and _RANK[finding.grade] <= _RANK[excuse.grade]
        for excuse in labels.also
    )


def measure(directory: Path) -> Counts:
    """Judge the whole corpus."""
    from ackward.loop.analyzing import analyze

    counts: Counts = defaultdict(Count)
    for name, labels in corpus(directory):
        for view, ends in VIEWS.items():
            seen = analyze([directory / f"{name}.{end}.pcap" for end in ends])
            judge(seen, labels, view, name, counts)
    return counts


def rows(counts: Counts) -> list[dict[str, object]]:
    """One row a cause (recall) and one a cause and grade (precision)."""
    table: list[dict[str, object]] = []
    for cause in Cause:
        of_cause = {grade: count for (one, grade), count in counts.items() if one == cause}
        if not of_cause:
            continue
        total = Count()
        for count in of_cause.values():
            total.right += count.right
            total.excused += count.excused
            total.wrong += count.wrong
            total.missed += count.missed
            total.losses += count.losses
        for grade, count in [("all", total), *sorted(of_cause.items())]:
            if grade != "missed":
                table.append(_row(cause, grade, count))
    return table


def _row(cause: Cause, grade: str, count: Count) -> dict[str, object]:
    known = asdict(count)
    del known["losses"], known["where_wrong"]
    lost = round(statistics.median(count.losses), 3) if count.losses else None
    recall = count.recall if grade == "all" else None
    return {
        "cause": cause,
        "grade": grade,
        **known,
        "recall": recall,
        "precision": count.precision,
        "lost": lost,
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--files", action="store_true", help="say where each wrong and missed exchange is")
    parser.add_argument("--make", action="store_true", help="capture the corpus again first (root)")
    given = parser.parse_args()
    if given.make:
        make_corpus(given.directory, progress=lambda name: print(name, file=sys.stderr))
    if not any(corpus(given.directory)):
        parser.error(f"there is no *.labels.json in {given.directory}")
    counts = measure(given.directory)
    table = rows(counts)
    wheres = {
        f"{cause} {grade}": count.where_wrong for (cause, grade), count in counts.items() if count.where_wrong
    }
    if given.json:
        print(json.dumps({"rows": table, "wrong": wheres}, indent=1))
        return 0
    lines = [list(table[0]), *([_text(value) for value in row.values()] for row in table)] if table else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if given.files:
        for what, places in wheres.items():
            print(f"\n{what}")
            print("\n".join(f"  {place}" for place in places))
    return 0


if __name__ == "__main__":
    sys.exit(main())
