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


def asking(name: str, **annotations: str) -> Attachment:
    """A pod with other annotations than all have."""
    return attachment(name).model_copy(
        update={"annotations": {key.replace("_", "-"): value for key, value in annotations.items()}}
    )


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
    assert metrics.registry.get_sample_value("ackward_node_problems_total") == 1
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


class InMemory(Pods):
    """No kernel: what is on record, and what each repair comes to."""

    def __init__(self, directory: Path, *recorded: Attachment) -> None:
        super().__init__(directory)
        self.recorded = {one.container_id: one for one in recorded}
        self.outcome = Outcome(changed=("a route",))

    def apply(self, attachment: Attachment, wanted: Wanted | None = None) -> Outcome:
        self.recorded[attachment.container_id] = attachment
        return self.outcome

    def forget(self, container_id: str, ifname: str) -> Outcome:
        del self.recorded[container_id]
        return Outcome(changed=("a route", "another route"))

    def all(self) -> list[Attachment]:
        return [*self.recorded.values()]

    def is_there(self, attachment: Attachment) -> bool:
        return True

    def lacking(self, attachment: Attachment) -> tuple[str, ...]:
        return self.outcome.problems


class Running:
    """Repairs, with the pods that run; ``events`` are the log's since it was asked last."""

    def __init__(self, pods: Pods, log: pytest.LogCaptureFixture) -> None:
        missed, self.metrics, self._log = Missed(pods.directory / "missed"), Metrics(), log
        self.unmet: list[Attachment] = []
        self.commands = Commands(pods, missed, self.metrics.count)
        self.repairs = Repairs(pods, self.commands, missed, self.metrics, lambda *_: self.unmet)

    def look(self, *unmet: Attachment) -> list[dict[str, object]]:
        self._log.clear()
        self.unmet = [*unmet]
        with self._log.at_level(logging.INFO, "ackward.node"):
            self.repairs.reach_running()
        return self.events

    def read_back(self) -> list[dict[str, object]]:
        self._log.clear()
        with self._log.at_level(logging.INFO, "ackward.node"):
            self.repairs.restore()
        return self.events

    @property
    def events(self) -> list[dict[str, object]]:
        return [
            {"event": record.getMessage(), **record.fields}  # type: ignore[attr-defined]
            for record in self._log.records
        ]

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"ackward_node_{name}", labels)


def test_an_annotation_that_makes_no_sense_is_told_and_counted_once_until_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(InMemory(tmp_path), caplog)
    nonsense, other = asking("c", enable_quickack="nonsense"), asking("c", enable_quickack="maybe")
    (told,) = running.look(nonsense)
    assert (told["event"], told["pod"]) == ("annotations make no sense", "container c")
    assert "'nonsense'" in str(told["complaints"])
    assert running.look(nonsense) == []
    assert running.count("annotation_complaints_total") == 1
    (told,) = running.look(other)
    assert "'maybe'" in str(told["complaints"])
    assert running.count("annotation_complaints_total") == 2


def test_of_one_that_asked_before_both_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Running(InMemory(tmp_path, attachment("c")), caplog)
    complaint, withdrawn = running.look(asking("c", enable_quickack="maybe"))
    assert complaint["event"] == "annotations make no sense"
    assert (withdrawn["way"], withdrawn["changed"]) == ("withdrawn", ("a route", "another route"))
    assert running.look(asking("c", enable_quickack="maybe")) == []
    assert running.count("annotation_complaints_total") == 1


def test_what_an_add_has_complained_of_is_not_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(InMemory(tmp_path), caplog)
    variables = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/c", "CNI_IFNAME": "eth0"}
    asks = {"enable-quickack": "nonsense"}
    running.commands(Request({"CNI_COMMAND": "ADD", **variables}, configuration(tmp_path / "sock", asks)))
    assert running.look(asking("c", enable_quickack="nonsense")) == []
    assert running.count("annotation_complaints_total") == 1


def test_a_problem_that_stays_is_told_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pods = InMemory(tmp_path)
    running = Running(pods, caplog)
    pods.outcome = Outcome(problems=("bypass: was not tried",))
    (told,) = running.look(attachment("c"))
    assert told["event"] == "pod not repaired"
    assert running.read_back() == running.look(attachment("c")) == []
    assert running.count("problems_total") == 1
    pods.outcome = Outcome(problems=("bypass: differs",))
    assert [told["problems"] for told in running.read_back()] == [("bypass: differs",)]
    assert running.count("problems_total") == 2


def test_pods_on_record_are_counted_when_somebody_reads_the_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(InMemory(tmp_path), caplog)
    for name in ("one", "two"):
        running.look(attachment(name))
    assert running.count("pods") == 2


@pytest.mark.parametrize(
    ("annotations", "given"),
    [
        ({"enable-quickack": "yes"}, 1),
        ({"enable-quickack": "maybe"}, 1),
        ({"enable-quickack": "no"}, 0),
        ({}, 0),
    ],
)
def test_a_running_pod_is_given_if_it_asks_or_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, annotations: dict[str, str], given: int
) -> None:
    sandbox = Sandbox("c", "default", "web", "u", 0, True, 0, annotations, Path("/nowhere.sock"))
    monkeypatch.setattr(cri, "running", lambda: cri.Running((sandbox,), ()))
    monkeypatch.setattr(cri.Runtime, "__enter__", lambda self: self)
    monkeypatch.setattr(cri.Runtime, "__exit__", lambda *_: None)
    monkeypatch.setattr(cri.Runtime, "__init__", lambda *_: None)
    monkeypatch.setattr(cri.Runtime, "network_namespace", lambda *_: Path("/run/netns/c"))
    complaints: list[AckwardError] = []
    found = list(runtime.unmet(runtime.of_sandbox, {}, complaints.append))
    assert (len(found), complaints) == (given, [])
