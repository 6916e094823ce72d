"""What a repair complains of is said once, and new complaints are said however many there were."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from ackward.errors import AckwardError, Unavailable
from ackward.node.cni_commands import Commands
from ackward.node.cni_missed import Missed
from ackward.node.metrics import Metrics
from ackward.node.pods import Attachment, Pods
from ackward.node.repairs import Repairs


def test_the_hundred_and_first_complaint_is_told_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complaint = ""

    def unmet(
        recorded: Mapping[str, Attachment], complain: Callable[[AckwardError], None]
    ) -> Iterable[Attachment]:
        complain(Unavailable(complaint))
        return []

    pods, missed = Pods(tmp_path / "attachments"), Missed(tmp_path / "missed")
    repairs = Repairs(pods, Commands(pods, missed), missed, Metrics(), unmet)
    with caplog.at_level(logging.INFO, "ackward.node"):
        for number in range(150):
            complaint = f"runtime {number} does not answer"
            repairs.reach_running()
            repairs.reach_running()
    told = [json.dumps(record.fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert len(told) == len(set(told)) == 150
