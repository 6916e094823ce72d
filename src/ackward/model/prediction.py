"""What ``ackward predict acks`` prints: settings, every round, one round as a ladder, what would avoid the wait.

All times are integers in nanoseconds of the model's own clock. The JSON Schema of :class:`AckPrediction` is
published as ``docs/prediction.schema.json``.
"""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from ackward.model.causes import Cause, End
from ackward.model.report import Ladder, Model

SCHEMA: Final = "ackward/prediction/1"

#: Full segments of all rounds together.
MOST_SEGMENTS = 20_000

_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000


class AckSettings(Model):
    """One connection: the client sends messages, the server acknowledges and answers.

    Defaults are Linux's. The client is the sender of interest: ``nagle``, ``tlp``, ``rto_min_ns`` and ``cwnd`` are
    its; ``delack_ns``, ``threshold``, ``quickack`` and ``pingpong_threshold`` are the server's.
    """

    rtt_ns: int = Field(ge=1_000, le=60 * _SECOND)
    delack_ns: int = Field(
        default=40 * _MILLISECOND, ge=0, le=10 * _SECOND, description="how long an ACK is held at most"
    )
    threshold: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="an ACK after this many segments (EF_DYNAMIC_ACK_THRESH); 0: by Linux's own rules",
    )
    writes: tuple[int, ...] = Field(
        default=(100, 200), min_length=1, max_length=64, description="bytes of each write of one message"
    )
    answer: tuple[int, ...] = Field(
        default=(100,), max_length=64, description="bytes of each write of the answer; empty: one way"
    )
    nagle: bool = True
    server_nagle: bool = False
    quickack: bool = Field(default=False, description="the server's route has quickack 1")
    quick: int = Field(default=16, ge=0, le=16, description="the budget of quick ACKs at the start")
    pingpong_threshold: int = Field(
        default=1, ge=1, le=255, description="net.ipv4.tcp_pingpong_thresh of both ends"
    )
    tlp: bool = Field(default=True, description="tail-loss probes: net.ipv4.tcp_early_retrans is 3 or 4")
    rto_min_ns: int = Field(default=200 * _MILLISECOND, ge=_MILLISECOND, le=120 * _SECOND)
    cwnd: int = Field(default=10, ge=1, le=10_000, description="initial congestion window in segments")
    mss: int = Field(default=1_448, ge=88, le=65_535)
    think_ns: int = Field(default=0, ge=0, le=60 * _SECOND, description="from a whole message to its answer")
    rest_ns: int = Field(default=0, ge=0, le=60 * _SECOND, description="between two rounds")
    rounds: int = Field(default=8, ge=1, le=1_000)
    tick_ns: int = Field(
        default=4 * _MILLISECOND,
        ge=0,
        le=10 * _MILLISECOND,
        description="one jiffy of both kernels; 0: timers that fire exactly",
    )

    @model_validator(mode="after")
    def _a_run_is_finite(self) -> Self:
        """Every write has bytes, and all rounds together are a run of seconds."""
        if min(self.writes + self.answer) < 1:
            raise ValueError("a write or an answer has no bytes")
        segments = (sum(self.writes) + sum(self.answer)) // self.mss * self.rounds
        if segments > MOST_SEGMENTS:
            raise ValueError(
                f"{segments} full segments in all rounds: at most {MOST_SEGMENTS}, take fewer rounds or less data"
            )
        return self


class Wait(Model):
    """One interval of the shown round in which one end waited for the other."""

    cause: Cause
    start_ns: int
    end_ns: int
    waiting: End
    words: str


class Round(Model):
    """One message, until its answer was read or, one way, its last byte acknowledged."""

    elapsed_ns: int = Field(ge=0)
    causes: dict[Cause, int] = Field(description="adds up to elapsed_ns exactly")
    acks: int = Field(description="ACKs without data that the server sent")
    acks_by_timer: int = Field(description="of them those that the delayed-ACK timer sent")
    probes: int = Field(description="tail-loss probes of both ends")
    spurious_probes: int = Field(description="of them those that repeated data which had arrived")
    timeouts: int = Field(description="retransmission timeouts; nothing is lost here, so all are spurious")

    @model_validator(mode="after")
    def _partition_holds(self) -> Self:
        """The law of the project."""
        if sum(self.causes.values()) != self.elapsed_ns:
            raise ValueError(
                f"causes add up to {sum(self.causes.values())} ns, not to elapsed_ns = {self.elapsed_ns}"
            )
        return self


class Alternative(Model):
    """The same load with one setting changed."""

    name: str
    end: End
    setting: str
    p50_ns: int
    saves_ns: int = Field(description="of the median round; negative: it would be slower")
    spurious_probes: int
    timeouts: int


class AckPrediction(Model):
    """What the two ends' rules will do to each other."""

    schema_: Literal["ackward/prediction/1"] = Field(default=SCHEMA, alias="schema")
    model: Literal["acks"] = "acks"
    settings: AckSettings
    p50_ns: int
    elapsed_ns: int = Field(description="sum over rounds")
    causes: dict[Cause, int] = Field(description="adds up to elapsed_ns exactly")
    rounds: list[Round]
    shown: int = Field(
        description="index in rounds: ladder and waits are of this round, a median one, or one with a spurious probe"
    )
    ladder: Ladder
    waits: list[Wait]
    alternatives: list[Alternative]
    verdict: list[str] = Field(description="sentences")
    not_modelled: list[str]

    @property
    def probes(self) -> int:
        """Of all rounds."""
        return sum(each.probes for each in self.rounds)

    @property
    def spurious_probes(self) -> int:
        """Of all rounds."""
        return sum(each.spurious_probes for each in self.rounds)

    @property
    def timeouts(self) -> int:
        """Of all rounds."""
        return sum(each.timeouts for each in self.rounds)

    @model_validator(mode="after")
    def _partition_holds(self) -> Self:
        """The law of the project, over all rounds."""
        if not sum(self.causes.values()) == self.elapsed_ns == sum(each.elapsed_ns for each in self.rounds):
            raise ValueError("the rounds and their causes do not add up to elapsed_ns")
        return self

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
