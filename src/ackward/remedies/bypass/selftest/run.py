"""The self-test: every hazard over TCP, over a bare sockmap and over the bypass, in a namespace of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.namespaces import call_inside, temporary
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.remedies.bypass.capabilities import build
from ackward.remedies.bypass.selftest.dialogue import Transcript, first_difference, play
from ackward.remedies.bypass.selftest.hazards import TRIALS, Trial
from ackward.remedies.bypass.selftest.ways import Bare, Joined, Kind, PlainTcp, Way
from ackward.remedies.receipts import boot_id

#: What socket() and setsockopt() say of a protocol that a kernel lacks (MPTCP, Fast Open).
_NO_SUCH_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP)
_UNDONE = b"one, two, three"
#: Hears which hazard is tried now.
Tell = Callable[[str], None]


def self_test(tell: Tell = lambda _: None) -> Capabilities:
    """Try every hazard; takes seconds, and touches nothing but a namespace that goes again.

    Raises :class:`PrivilegeMissing` without root and :class:`Unavailable` where there is no bypass at all.
    """
    with temporary("selftest") as host, Bare.loaded(host) as bare:
        tcp = PlainTcp(host)
        call_inside(host, _let_fast_open)
        # First all that is compared with: while the bypass is there, no connection is plain.
        tell("plain TCP")
        expected = [_expected(trial, tcp) for trial in TRIALS]
        tell("a bare sockmap")
        alone = [_departures(trial, told, bare) for trial, told in zip(TRIALS, expected, strict=True)]
        with Joined.attached(host) as joined:
            require_redirection(joined)
            findings = []
            for trial, told, bare_words in zip(TRIALS, expected, alone, strict=True):
                tell(f"the bypass: {trial.hazard}")
                findings.append(_finding(trial, told, bare_words, _departures(trial, told, joined)))
            tell(f"the bypass: {Hazard.UNDO}")
            findings.append(_undone(joined))
    return Capabilities(
        kernel=os.uname().release,
        boot_id=boot_id(),
        engine=build(),
        tried=datetime.now(UTC).isoformat(timespec="seconds"),
        findings=tuple(findings),
    )


def _let_fast_open() -> None:
    """Fast Open at both ends, without cookies that would have to be fetched first (tcp_fastopen in ip-sysctl)."""
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(0x1 | 0x2 | 0x4 | 0x200), encoding="ascii")


def _expected(trial: Trial, tcp: PlainTcp) -> list[Transcript]:
    """What programs see over TCP; nothing where this kernel has no such connections."""
    try:
        return [play(dialogue, *tcp.pair(trial.kind)) for dialogue in trial.dialogues]
    except OSError as error:
        if error.errno not in _NO_SUCH_PROTOCOL:
            raise
        return []


def _finding(trial: Trial, expected: Sequence[Transcript], alone: str, found: str) -> Finding:
    if not expected:
        words = "this kernel has no such connections"
        return Finding(hazard=trial.hazard, outcome=Outcome.SAME, measured=words)
    if found:
        return Finding(hazard=trial.hazard, outcome=Outcome.DIFFERS, measured=found)
    if alone:
        return Finding(hazard=trial.hazard, outcome=Outcome.MITIGATED, measured=f"in a bare sockmap: {alone}")
    words = f"in {len(expected)} of {len(expected)} dialogues"
    return Finding(hazard=trial.hazard, outcome=Outcome.SAME, measured=words)


def _departures(trial: Trial, expected: Sequence[Transcript], way: Way) -> str:
    """Where a dialogue of the trial first goes another way than with TCP; empty if none does."""
    for dialogue, told in zip(trial.dialogues, expected, strict=False):
        try:
            ends = way.pair(trial.kind)
        except OSError as error:
            return f"the kernel joins no such sockets ({error.strerror})"
        if found := first_difference(told, play(dialogue, *ends)):
            return found
    return ""


def _undone(joined: Joined) -> Finding:
    """Bytes wait in the reader's queue when the bypass stops: those that come after them over TCP stay behind them."""
    connecting, accepted = joined.pair(Kind())
    with connecting, accepted:
        # The first message may go over TCP: the server's end joins when it is established.
        connecting.sendall(b"one, ")
        before = joined.redirected()
        connecting.sendall(b"two, ")
        taken = joined.redirected()
        joined.engine.switch(joining=True, redirecting=False)
        try:
            connecting.sendall(b"three")
            accepted.settimeout(1)
            read = b""
            while len(read) < len(_UNDONE) and (part := accepted.recv(100)):
                read += part
        except TimeoutError:
            pass  # what did come is told
        finally:
            joined.engine.switch(joining=True, redirecting=True)
        stopped = before < taken == joined.redirected()
    if read == _UNDONE and stopped:
        return Finding(hazard=Hazard.UNDO, outcome=Outcome.SAME, measured="every byte, in order")
    return Finding(
        hazard=Hazard.UNDO, outcome=Outcome.DIFFERS, measured=f"after the bypass was stopped: {read!r}"
    )


def require_redirection(way: Way) -> None:
    """Raise :class:`Unavailable` unless messages do go past the stack: else TCP would be compared with itself."""
    before = way.redirected()
    ends = way.pair(Kind())
    try:
        ends[0].send(b"first")
        ends[1].recv(5)
        ends[0].send(b"second")
    finally:
        for end in ends:
            end.close()
    if way.redirected() == before:
        raise Unavailable(
            "nothing goes past the stack here, although programs and maps are in place",
            consequence="there is no bypass here",
            next_step="report this kernel, with the output of `ackward doctor --json`",
        )
