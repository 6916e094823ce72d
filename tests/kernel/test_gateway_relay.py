"""Bytes through a relay on real sockets: whole, in order, bounded; and the pool of pipes."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    Running,
    answer_reversed,
    free_port,
    gateway,
    leg_exit,
    peer,
    read_all,
    server,
)
from tests.polling import eventually
from tests.steady import FINAL

from ackward.gateway.loop import Loop
from ackward.gateway.pipes import Pipes
from ackward.gateway.relay import Relay
from ackward.gateway.settings import Buffers, End, FixedListener, Settings, Steps
from ackward.gateway.sockets import Socket, set_urgent_options
from ackward.kernel.namespaces import Namespace, call_inside, command_inside

pytestmark = FINAL

STEPS = Steps(early=False, window=False)
#: The promise of issue 8: what the gateway may hold for one connection.
MOST_HELD = 8_000_000


def test_a_pipe_with_bytes_in_it_never_goes_back():
    pipes = Pipes(65536)
    empty, full = pipes.take(), pipes.take()
    full.used = os.write(full.into, b"another customer's") > 0
    pipes.give_back(empty)
    pipes.give_back(full)
    assert (pipes.open, pipes.refused) == (1, 1)
    assert pipes.take() is empty
    with pytest.raises(OSError):
        os.fstat(full.out)
    pipes.give_back(empty)
    pipes.close()
    assert pipes.open == 0


class Joined:
    """A relay between two pairs of connected sockets, and the loop that drives it."""

    def __init__(self, *, splice: bool = True) -> None:
        self.client, near = _pair()
        far, self.server = _pair()
        self.ends: list[End] = []
        self.loop, self.pipes = Loop(), Pipes(65536)
        self.relay = Relay(self.loop, self.pipes, _raw(near), _raw(far), self._ended, splice=splice)

    def _ended(self, end: End) -> None:
        self.ends.append(end)
        self.loop.stop()

    def run(self) -> None:
        self.loop.after(20, self.loop.stop)
        self.relay.start()
        if not self.ends:
            self.loop.run()
        self.loop.close()
        self.pipes.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def _raw(sock: socket.socket) -> Socket:
    made = Socket(fileno=sock.detach())
    made.setblocking(False)
    set_urgent_options(made)
    return made


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_both_directions_at_once_in_random_pieces(seed: int, splice: bool):
    choice = random.Random(seed)
    joined = Joined(splice=splice)
    data = [choice.randbytes(choice.randrange(1, 3_000_000)) for _ in range(2)]
    got: dict[int, bytes] = {}

    def talk(number: int, sock: socket.socket) -> None:
        def send() -> None:
            pieces, at = random.Random(seed + number), 0
            while at < len(data[number]):
                size = pieces.choice([1, 7, 1000, 65536, 500_000])
                sock.sendall(data[number][at : at + size])
                at += size
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got[number] = read_all(sock)
        sender.join()

    threads = [threading.Thread(target=talk, args=pair) for pair in enumerate((joined.client, joined.server))]
    for thread in threads:
        thread.start()
    joined.run()
    for thread in threads:
        thread.join()
    joined.client.close()
    joined.server.close()
    assert (got[0], got[1]) == (data[1], data[0])
    assert joined.ends == [End.DONE]
    assert (joined.relay.up.moved, joined.relay.down.moved) == (len(data[0]), len(data[1]))
    assert (joined.pipes.open, joined.pipes.refused) == (0, 0)


def test_a_reset_with_bytes_on_their_way_loses_the_pipe_not_the_next_customer():
    joined = Joined()
    joined.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    joined.client.setblocking(False)
    joined.loop.after(
        0.2, lambda: (joined.client.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0"), joined.client.close())
    )

    def fill() -> None:
        try:
            while True:
                joined.client.send(bytes(65536))
        except BlockingIOError:
            joined.loop.after(0.01, fill)
        except OSError:
            return  # closed: the reset is on its way

    fill()
    joined.run()
    joined.server.close()
    assert joined.ends == [End.CLIENT_RESET]
    assert joined.pipes.refused == 1
    assert joined.pipes.open == 0


@pytest.mark.parametrize("legs", [False, True], ids=["single", "legs"])
def test_a_slow_reader_of_a_fast_server_holds_little_and_loses_nothing(
    host: Namespace, tmp_path: Path, legs: bool
):
    size = 24_000_000
    sent = os.urandom(1 << 20)

    def pour(connection: socket.socket) -> None:
        connection.recv(1)
        for _ in range(size >> 20):
            connection.sendall(sent)

    with server(host, pour) as far, server(host, answer_reversed) as other, ExitStack() as stack:
        ports = [free_port(host) for _ in range(2)]
        leg_port = free_port(host)
        via = "exit" if legs else ""
        listeners = tuple(
            FixedListener(str(number), ("127.0.0.1", port), target.address, via)
            for number, (port, target) in enumerate(zip(ports, (far, other), strict=True))
        )
        running: list[Running] = []
        if legs:
            exit_ = Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=STEPS)
            running.append(stack.enter_context(gateway(host, exit_, tmp_path / "far")))
        peers = (peer(("127.0.0.1", leg_port)),) if legs else ()
        near = Settings(listeners=listeners, peers=peers, steps=STEPS)
        running.append(stack.enter_context(gateway(host, near, tmp_path / "near")))
        if legs:
            assert eventually(lambda: running[-1].idle_legs() >= 4)
        slow = call_inside(host, socket.socket)
        with slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            slow.connect(("127.0.0.1", ports[0]))
            slow.sendall(b"!")
            most, got, began = 0, 0, time.monotonic()
            # 1 MB/s for a second: far more is offered meanwhile than may be held.
            while got < 1_000_000:
                got += len(slow.recv(20_000))
                assert eventually(lambda got=got: time.monotonic() - began >= got / 1e6)
                if got % 5 == 0:
                    most = max(most, _held_in(host, running, ports[0], leg_port, far.address[1]))
            most = max(most, _held_in(host, running, ports[0], leg_port, far.address[1]))
            # Others are not slowed by it.
            with call_inside(host, socket.create_connection, ("127.0.0.1", ports[1]), 5) as quick:
                asked = time.monotonic()
                quick.sendall(b"quick")
                quick.shutdown(socket.SHUT_WR)
                assert read_all(quick) == b"kciuq"
                assert time.monotonic() - asked < 0.5
            rest = read_all(slow)
        assert got + len(rest) == (size >> 20) << 20
        assert rest[-len(sent) :] == sent
        # More than a pipe: what the sockets hold was seen.
        assert Buffers().pipe < most <= MOST_HELD * len(running)


def _held_in(host: Namespace, running: list[Running], near: int, leg: int, far: int) -> int:
    """All that is between the slow reader and the server but in no end's own socket."""
    command = command_inside(host, ["ss", "-tmnHO", "state", "connected"])
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    total = sum(worker["longest"][0]["held"] for one in running for worker in one.status if worker["longest"])
    for line in shown.splitlines():
        ends = re.findall(r"127\.0\.0\.1:(\d+)", line)
        memory = re.search(r"skmem:\(r(\d+),.*?,w(\d+),", line)
        if len(ends) == 2 and memory:
            local, remote = map(int, ends)
            if local in (near, leg) or remote in (leg, far):
                total += int(memory[1]) + int(memory[2])
    return total


def test_the_sum_of_the_buffers_is_below_what_is_promised():
    buffers = Buffers()
    assert buffers.leg + buffers.pipe + buffers.near < MOST_HELD


@pytest.mark.parametrize("splice", [True, False])
def test_urgent_bytes_stay_in_their_place(splice: bool):
    """splice() stops before them, which must neither lose the byte nor let the loop spin."""
    joined = Joined(splice=splice)
    for part in (b"abc", b"!", b"def", b"?"):
        joined.client.send(part, socket.MSG_OOB if part in b"!?" else 0)
    joined.client.send(b"ghi")
    joined.client.shutdown(socket.SHUT_WR)
    joined.server.shutdown(socket.SHUT_WR)
    joined.run()
    assert read_all(joined.server) == b"abc!def?ghi"
    joined.client.close()
    joined.server.close()
    assert joined.ends == [End.DONE]
