"""What a repair complains of is said once, however many there were; and one pod's trouble is not the others'."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from tests.unit.stub_runs import configuration

from ackward.errors import AckwardError, Unavailable
from ackward.kernel import cri
from ackward.model.pods import Sandbox
from ackward.node import runtime
from ackward.node.annotations import Wanted
from ackward.node.cni_commands import Commands, Served
from ackward.node.cni_missed import Missed
from ackward.node.metrics import Metrics
from ackward.node.pods import Attachment, Outcome, Pods
from ackward.node.repairs import Repairs
from ackward.node.wire import Answer, Request

ASKS = {"enable-quickack": "yes"}


def none_unmet(
    recorded: Mapping[str, Attachment], complain: Callable[[AckwardError], None]
) -> Iterable[Attachment]:
    return ()


def attachment(name: str) -> Attachment:
    return Attachment(container_id=name, ifname="eth0", netns=f"/run/netns/{name}", annotations=ASKS)


class OnePodFails(Pods):
    """Whatever is asked of the pod ``bad`` is a fault of ours."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.repaired: list[str] = []

    def apply(self, attachment: Attachment, wanted: Wanted | None = None) -> Outcome:
        if attachment.container_id == "bad":
            raise LookupError("a fault of ours")
        self.repaired.append(attachment.container_id)
        return Outcome()

    def all(self) -> list[Attachment]:
        return [attachment("bad"), attachment("good")]

    def is_there(self, attachment: Attachment) -> bool:
        return True

    def lacking(self, attachment: Attachment) -> tuple[str, ...]:
        return ("everything",)


def test_one_pod_that_cannot_be_repaired_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pods, missed, metrics = OnePodFails(tmp_path), Missed(tmp_path / "missed"), Metrics()
    repairs = Repairs(pods, Commands(pods, missed), missed, metrics, lambda *_: pods.all())
    with caplog.at_level(logging.INFO, "ackward.node"):
        repairs.reach_running()
        repairs.restore()
    assert pods.repaired == ["good", "good"]
    assert metrics.registry.get_sample_value("ackward_node_problems_total") == 2
    told = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert [one["error"] for one in told if "error" in one] == ["container bad: LookupError: a fault of ours"]


def test_a_running_pod_that_cannot_be_looked_at_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandboxes = tuple(
        Sandbox(name, "default", name, name, 0, True, 0, {}, Path("/nowhere.sock"))
        for name in ("bad", "good")
    )

    def looked_at(sandbox: Sandbox, *_: object) -> Attachment:
        if sandbox.id == "bad":
            raise LookupError("a fault of ours")
        return attachment(sandbox.id)

    monkeypatch.setattr(runtime, "_unmet", looked_at)
    monkeypatch.setattr(cri, "running", lambda: cri.Running(sandboxes, ()))
    complaints: list[AckwardError] = []
    found = list(runtime.unmet(runtime.of_sandbox, {}, complaints.append))
    assert [one.container_id for one in found] == ["good"]
    assert [one.missing for one in complaints] == [
        "default/bad cannot be looked at (LookupError: a fault of ours)"
    ]


def test_a_request_that_nobody_can_answer_is_met_once(tmp_path: Path) -> None:
    """It lies on the disk: each agent to come would end by it."""
    troubles: list[str] = []
    pods, missed = Pods(tmp_path / "attachments"), Missed(tmp_path / "missed", troubles.append)
    missed.directory.mkdir()
    for number, name in enumerate(("bad.eth0", "good.eth0")):
        path = missed.directory / name
        path.write_bytes(Request({"CNI_CONTAINERID": name}, b"{}").pack())
        os.utime(path, (number, number))
    answered: list[str] = []

    class OneFails(Commands):
        def __call__(self, request: Request) -> Answer:
            name = request.environment["CNI_CONTAINERID"]
            if name.startswith("bad"):
                raise LookupError("a fault of ours")
            answered.append(name)
            return Answer()

    repairs = Repairs(pods, OneFails(pods, missed), missed, Metrics(), none_unmet)
    assert (repairs.answer_missed(), answered, missed.waiting()) == (1, ["good.eth0"], 0)
    assert [words.partition("eth0")[2] for words in troubles] == [
        " could not be answered and was removed: LookupError: a fault of ours"
    ]


def test_digits_that_make_no_sense_end_no_agent(tmp_path: Path) -> None:
    """More digits than a check may look at: the request is answered, with a complaint."""
    served: list[Served] = []
    pods, missed = Pods(tmp_path / "attachments"), Missed(tmp_path / "missed")
    missed.directory.mkdir()
    asks = {"ackward.io/initcwnd": "00000001099999"}
    variables = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/nowhere",
        "CNI_IFNAME": "eth0",
    }
    (missed.directory / "c.eth0").write_bytes(
        Request(variables, configuration(tmp_path / "agent.sock", asks)).pack()
    )
    repairs = Repairs(pods, Commands(pods, missed, served.append), missed, Metrics(), none_unmet)
    assert (repairs.answer_missed(), missed.waiting()) == (1, 0)
    assert [(one.code, len(one.complaints)) for one in served] == [(0, 1)]


def test_the_hundred_and_first_complaint_is_told_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complaint = ""

    def unmet(
        recorded: Mapping[str, Attachment], complain: Callable[[AckwardError], None]
    ) -> Iterable[Attachment]:
        complain(Unavailable(complaint, consequence="its pods are not known", next_step="see its log"))
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
