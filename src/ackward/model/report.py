"""The report: what ``watch``, ``analyze`` and ``lab run`` print with ``--json``.

All times are integers in nanoseconds. The JSON Schema of :class:`Report` is published as ``docs/report.schema.json``.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ackward.model.causes import Cause, End, Grade
from ackward.model.sequence import SequencePlot


class Model(BaseModel):
    """Base of all published models: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class CauseTotal(Model):
    """What one cause cost, summed over exchanges."""

    ns: int = Field(ge=0)
    exchanges: int = Field(ge=0, description="exchanges in which the cause took any time at all")


class Quantiles(Model):
    """A distribution of times over the exchanges of a finding."""

    p50: int
    p99: int
    total: int


class Remedy(Model):
    """One way out of a finding.

    ``saves_ns`` is the sum over the finding's exchanges. For what ackward can turn (quickack, nodelay, initcwnd): their
    time less what each would take, its events replayed without that rule of TCP. For ``advice`` nothing is replayed:
    it is the stall's own length, the most that can be gained (0 where it would spare segments and no time).
    ``command`` is the exact command line for something ackward can turn; ``advice`` is for what it cannot, or where the
    program itself could do better.
    """

    name: str
    end: End
    saves_ns: int
    typical_ns: int | None = Field(
        default=None, description="what the finding's example, a typical exchange, would take with the remedy"
    )
    command: str | None = None
    advice: str | None = None


class Process(Model):
    """Who owns an end, as far as this host can tell."""

    pid: int | None = None
    command: str | None = None
    container: str | None = Field(default=None, description="the first 12 digits of its id")
    netns: str | None = None
    container_name: str | None = Field(default=None, description="its name in the pod")
    pod: str | None = Field(default=None, description="NAMESPACE/NAME, if a pod was asked for by name")
    node: str | None = Field(default=None, description="the node that the pod runs on")


class LadderStep(Model):
    """One line of a ladder diagram: a segment, or something that happened inside one end.

    ``at_ns`` counts from the exchange's start. ``sender`` is the end the segment left; for an event inside a host it is
    that host and ``arrives_ns`` is null. A segment with ``arrives_ns`` null was never seen to arrive; where its arrival
    is merely not known, it carries an estimate and ``estimated``.
    """

    at_ns: int
    arrives_ns: int | None = None
    sender: End
    kind: Literal["segment", "write-held", "ack-timer", "read"] = "segment"
    estimated: bool = Field(default=False, description="the time at the other end is estimated, not seen")
    seq: int = 0
    ack: int = 0
    bytes: int = 0
    flags: str = ""
    note: str = ""
    left_out: int = Field(
        default=0, ge=0, description="segments of the exchange before this step, not listed"
    )


class Stall(Model):
    """The interval of the example exchange that the finding is about, from the exchange's start."""

    start_ns: int
    end_ns: int
    label: str


class Ladder(Model):
    """One exchange drawn as a ladder: the evidence of a finding.

    ``seq`` and ``ack`` count from the exchange's start.
    """

    elapsed_ns: int
    steps: list[LadderStep]
    stalls: list[Stall]


class Finding(Model):
    """A cause that cost enough to mention, on one flow or on alike flows between the same two ends."""

    cause: Cause
    grade: Grade
    client: str
    server: str
    client_process: Process | None = None
    server_process: Process | None = None
    flows: int = 1
    holding_end: End | None = None
    delaying_end: End | None = None
    exchanges: int
    lost_ns: Quantiles
    why: str
    evidence: list[str] = []
    remedies: list[Remedy] = []
    ladder: Ladder | None = None
    sequence: SequencePlot | None = None


class FlowSummary(Model):
    """One row of the flow table."""

    client: str
    server: str
    client_process: Process | None = None
    server_process: Process | None = None
    seen_from: Literal["client", "server", "both", "between"]
    protocol: Literal["tcp", "mptcp"] = "tcp"
    exchanges: int
    elapsed_ns: int
    bytes_to_server: int = 0
    bytes_to_client: int = 0
    retransmissions: int | None = Field(
        default=None,
        description="recorded segments that brought what had passed before: data, a SYN or a FIN",
    )
    rtt_ns: int | None = Field(
        default=None, description="from the SYN that was answered until the client confirmed the answer"
    )
    ack_rtt_ns: int | None = Field(
        default=None,
        description="median time from data that left the watched end, and not again, until its ACK arrived",
    )
    worst_cause: Cause | None = None


class SameHost(Model):
    """Connections to one server that stay within a host, and what a bypass of the stack would be worth to them.

    ``saves_ns`` is an estimate over all their exchanges, 0 where ``words`` says why not.
    """

    server: str
    known_by: Literal["both ends", "loopback"]
    flows: int
    exchanges: int
    saves_ns: int
    words: str
    command: str | None = None


class Capture(Model):
    """What was watched, and what of it could not be kept."""

    source: str
    seconds: float = 0.0
    flows: int = 0
    segments: int = 0
    dropped_flows: int = Field(
        default=0, description="whole flows shed because the ring was full; not in any sum"
    )
    notes: list[str] = []


class Report(Model):
    """Where the time of all exchanges went, and the findings that cost most."""

    schema_: Literal["ackward/report/1"] = Field(default="ackward/report/1", alias="schema")
    capture: Capture
    exchanges: int
    elapsed_ns: int = Field(description="sum over exchanges")
    causes: dict[Cause, CauseTotal]
    findings: list[Finding] = []
    flows: list[FlowSummary] = []
    same_host: list[SameHost] = []
    latency_ns: list[int] = Field(
        default=[],
        description=(
            "101 quantiles, at 0 to 100 %, of the time that exchanges took: each is the smallest time that this "
            "share of them did not exceed. Empty without exchanges. Exchanges that were only counted enter with "
            "the mean of their flow"
        ),
    )

    @model_validator(mode="after")
    def _partition_holds(self) -> Self:
        """The law of the project: the parts add up to the elapsed time, exactly."""
        parts = sum(total.ns for total in self.causes.values())
        if parts != self.elapsed_ns:
            raise ValueError(f"causes add up to {parts} ns, not to elapsed_ns = {self.elapsed_ns}")
        return self

    @model_validator(mode="after")
    def _latencies_are_quantiles(self) -> Self:
        if self.latency_ns and (len(self.latency_ns) != 101 or self.latency_ns != sorted(self.latency_ns)):
            raise ValueError("latency_ns holds 101 numbers that do not fall, or none")
        return self

    def to_json(self) -> str:
        """The published JSON form, without the plots of findings: thousands of points for a page, not for a program."""
        return self.model_dump_json(by_alias=True, indent=2, exclude={"findings": {"__all__": {"sequence"}}})
