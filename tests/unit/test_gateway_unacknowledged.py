"""What is not acknowledged: what TCP_INFO says of it, and how long it is waited for."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace

import pytest

from ackward.gateway.unacknowledged import Patience, Step, Unacknowledged, is_idle, judge, look

SENT = Unacknowledged(1448, 1500, 1, 1000, others_arrive=False, large=True)
INFO = {
    "unacked": 10, "retransmits": 4, "sacked": 0, "snd_mss": 1448, "pmtu": 1500,
    "bytes_sent": 1000 + 10 * 1448 + 4 * 1448, "bytes_retrans": 4 * 1448, "bytes_acked": 1000,
}  # fmt: skip


def test_what_timed_out_is_read_from_tcp_info():
    what = judge(INFO)
    assert what == Unacknowledged(1448, 1500, 4, 1000, others_arrive=False, large=True)
    assert what.may_be_too_long
    assert judge(INFO | {"sacked": 3}).others_arrive


@pytest.mark.parametrize("usual", [{"unacked": 0}, {"retransmits": 0}])
def test_what_waits_without_a_timeout_is_nothing(usual):
    assert judge(INFO | usual) is None


def test_short_segments_and_a_first_timeout_are_not_put_down_to_their_length():
    short = judge(INFO | {"bytes_sent": 1000 + 10 * 100 + 4 * 1448})
    assert not short.large
    assert not short.may_be_too_long
    assert not judge(INFO | {"retransmits": 2}).may_be_too_long


def test_a_real_socket_s_fields():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
    ):
        other, _ = listener.accept()
        with other:
            assert is_idle(one)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    one.send(bytes(1 << 16))
            assert not is_idle(one)
            assert look(one) is None, "a closed window is no silence"


def seen(*looks, limit=10.0):
    """The steps of looks of one second each."""
    patience = Patience(0.0)
    steps = []
    for second, what in enumerate(looks):
        steps.append(patience.see(what, float(second), limit))
        if steps[-1] is Step.SUSPECT:
            patience.fragments()
    return steps


def test_it_is_suspected_once_and_given_up_at_the_limit():
    stuck = replace(SENT, timeouts=3)
    steps = seen(*[SENT] * 2, *[stuck] * 9)
    assert steps == [Step.WAIT] * 2 + [Step.SUSPECT] + [Step.WAIT] * 7 + [Step.GIVE_UP]


def test_progress_begins_the_time_anew():
    steps = seen(*(replace(SENT, acknowledged=number) for number in range(30)))
    assert steps == [Step.WAIT] * 30


@pytest.mark.parametrize("after", [None, replace(SENT, acknowledged=2448)])
def test_what_goes_on_once_routers_may_fragment_is_told(after):
    assert seen(replace(SENT, timeouts=3), after, after) == [Step.SUSPECT, Step.WENT_ON, Step.WAIT]


def test_what_goes_on_by_itself_is_not():
    patience = Patience(0.0)
    assert patience.see(replace(SENT, timeouts=3), 0.0, 10.0) is Step.SUSPECT
    assert patience.see(None, 1.0, 10.0) is Step.WAIT
