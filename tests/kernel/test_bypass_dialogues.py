"""Random dialogues: what programs see over the bypass is what they see over TCP, but for what is declared.

Each dialogue is a few socket calls of two programs, in any order; what each call gave, and the events at both ends after
it, must be the same. The calls that are declared to differ (bypass_differences.py) are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.kernel.bypass_differences import DECLARED
from tests.steady import FINAL

from ackward.kernel.namespaces import temporary
from ackward.remedies.bypass.selftest.calls import CALLS
from ackward.remedies.bypass.selftest.dialogue import Step, first_difference, play, talk
from ackward.remedies.bypass.selftest.hazards import TRIALS
from ackward.remedies.bypass.selftest.run import require_redirection
from ackward.remedies.bypass.selftest.ways import Joined, Kind, PlainTcp

pytestmark = FINAL

#: A nightly run may ask for thousands.
DIALOGUES = int(os.environ.get("ACKWARD_DIALOGUES", "250"))

WRITES = ("send", "send gathered", "send file", "splice in")
READS = ("receive", "peek", "discard", "receive scattered", "receive in time")
LOOKS = ("poll", "edge", "waiting", "error", "duplicate", "drain")
#: Drawn by rule: a half-close, a close when all was read (else it is `close-unread`), and a writer that fills all there is.
SCRIPTED = {"shut write", "close", "fill"}
#: Not drawn: it makes another kind of socket (kTLS). The self-test's dialogues show that it is the same over both.
LAYERED = {"layer"}
WHO = st.sampled_from(("client", "server"))
SIZES = st.one_of(st.integers(1, 300), st.sampled_from((1024, 1448, 4096, 9000)))
ADDRESSES = st.sampled_from(("127.0.0.1", "::1", "::ffff:127.0.0.1"))


@st.composite
def dialogues(draw) -> tuple[Step, ...]:
    """Up to a dozen calls, then perhaps a half-close with more calls or a full queue, perhaps both ends' last words."""
    step = st.one_of(
        st.builds(Step, WHO, st.sampled_from(WRITES), SIZES),
        st.builds(Step, WHO, st.sampled_from(READS), SIZES),
        st.builds(Step, WHO, st.sampled_from(LOOKS)),
    )
    steps = draw(st.lists(step, min_size=1, max_size=10))
    then = draw(st.sampled_from(("", "shut write", "fill")))
    who = draw(WHO)
    other = "server" if who == "client" else "client"
    if then == "fill":
        # How much a writer gets rid of is no promise: its reader takes some of it as it likes, then all, and all of the next.
        reads = st.builds(Step, st.just(other), st.sampled_from(READS), SIZES)
        steps += [Step(who, "fill"), *draw(st.lists(reads, max_size=4)), Step(other, "drain")]
        steps += [Step(who, "fill"), Step(other, "drain")]
    elif then == "shut write":
        steps.append(Step(who, "shut write"))
        # Who has shut down may read; the other may do all.
        steps += [
            part for part in draw(st.lists(step, max_size=6)) if part.who == other or part.call not in WRITES
        ]
    if draw(st.booleans()):
        who = draw(WHO)
        other = "server" if who == "client" else "client"
        steps += [Step(who, "drain"), Step(who, "close"), Step(other, "receive", 100), Step(other, "drain")]
    return tuple(steps)


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[PlainTcp, Joined]]:
    """Plain TCP in one namespace, the bypass in another."""
    with temporary("plain") as plain, temporary("joined") as host, Joined.attached(host) as joined:
        require_redirection(joined)
        yield PlainTcp(plain), joined


def test_random_dialogues_are_the_same_over_tcp_and_over_the_bypass(ways):
    tcp, joined = ways
    before = joined.redirected()

    @settings(
        max_examples=DIALOGUES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(dialogues(), ADDRESSES)
    def same(dialogue, address):
        kind = Kind(address)
        expected = play(dialogue, *tcp.pair(kind))
        assert first_difference(expected, play(dialogue, *joined.pair(kind))) is None, "\n".join(
            map(str, dialogue)
        )

    same()
    assert joined.redirected() - before > DIALOGUES  # else TCP was compared with itself


def test_every_call_is_drawn_or_declared_to_differ():
    """A new call belongs to one of them."""
    declared = set().union(*DECLARED.values())
    assert set(WRITES + READS + LOOKS) | declared | SCRIPTED | LAYERED == set(CALLS)
    assert not set(WRITES + READS + LOOKS) & declared


def test_tcp_is_the_same_as_itself(ways):
    """The control: every trial's dialogues over TCP give the same transcript twice, so a difference means something."""
    tcp, _ = ways
    for trial in TRIALS:
        if trial.kind != Kind():
            continue
        for dialogue in trial.dialogues:
            assert (
                first_difference(play(dialogue, *tcp.pair(Kind())), play(dialogue, *tcp.pair(Kind()))) is None
            )


def test_a_difference_is_found_and_told(ways):
    tcp, _ = ways
    expected = play(talk("c send 10; s receive 10"), *tcp.pair(Kind()))
    shorter = play(talk("c send 10; s receive 9"), *tcp.pair(Kind()))
    assert "recv(10)" in expected[1].step
    assert first_difference(expected, shorter) is not None
    assert first_difference(expected, expected[:1]) == "one of the dialogues was cut off"
    assert first_difference(expected, expected) is None


def test_a_program_that_hangs_is_told(ways):
    tcp, _ = ways
    seen: list[str] = [one.gave for one in play(talk("s wait 10; s wait 10 ends"), *tcp.pair(Kind()))]
    assert seen == ["begun", "hangs"]
