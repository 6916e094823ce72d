"""The bypass joins connections from their first byte on, keeps all bytes in order, and leaves nothing."""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading

import pytest
from tests.kernel.bypass_hosts import (
    HANGS,
    both_ways,
    close,
    connect,
    engine,
    entries,
    in_kernel,
    listener,
    map_ids,
    pair,
    readable,
)
from tests.polling import eventually
from tests.steady import FINAL

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.remedies.bypass.engine import Engine

pytestmark = FINAL


@pytest.mark.parametrize(
    ("address", "to"), [("127.0.0.1", None), ("::1", None), ("::", "127.0.0.1"), ("::", "::ffff:127.0.0.1")]
)
def test_what_one_end_writes_the_other_reads(
    host: Namespace, joining: Engine, address: str, to: str | None
) -> None:
    client, server = pair(host, address, to)
    assert joining.survey().connections == 1
    client.sendall(b"question")
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    assert client.recv(100) == b"answer"
    counters = joining.counters()
    assert (counters.redirected, counters.redirected_bytes, counters.passed) == (2, 14, 0)
    client.close()
    assert server.recv(1) == b""
    server.close()
    assert eventually(lambda: joining.survey().ends == 0)
    assert joining.counters().left == 2


def test_bytes_of_both_ways_lie_in_one_queue(host: Namespace, joining: Engine) -> None:
    """Redirected, over TCP, redirected again: in order, and FIONREAD counts them all."""
    client, server = pair(host)
    for number in range(6):
        joining.switch(joining=True, redirecting=number % 2 == 0)
        client.sendall(b"%03d" % number)
        assert eventually(lambda: readable(server) == 3 * (number + 1))  # noqa: B023 - called at once
    assert server.recv(100) == b"000001002003004005"
    counters = joining.counters()
    assert (counters.redirected, counters.passed_stopped) == (3, 3)
    close(client, server)


def test_order_while_the_way_changes_all_the_time(host: Namespace, joining: Engine) -> None:
    done = threading.Event()

    def change() -> None:
        redirecting = True
        while not done.wait(0.002):
            redirecting = not redirecting
            joining.switch(joining=True, redirecting=redirecting)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for seed in range(4):
            ends = pair(host)
            written, read, back, read_back = both_ways(ends, 3_000_000, seed)
            assert (written, back) == (read, read_back)
            close(*ends)
    finally:
        done.set()
        changing.join()
    counters = joining.counters()
    assert counters.redirected
    assert counters.passed_stopped


def test_what_is_sent_again_is_not_read_again(host: Namespace, joining: Engine) -> None:
    """A segment that begins before the end of what has arrived, as a sender makes when it sends two again as one."""
    client, server = pair(host)
    joining.switch(joining=True, redirecting=False)
    with call_inside(host, socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300) as wire:
        wire.settimeout(HANGS)
        client.sendall(b"abcdef")
        while not (packet := wire.recv(2000)).endswith(b"abcdef"):
            pass
    assert server.recv(6) == b"abcdef"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    call_inside(host, send_again, packet, 3, b"defGHI")
    assert eventually(lambda: readable(server) == 3)
    assert server.recv(100) == b"GHI"
    assert joining.counters().overlapped == 1
    close(client, server)


def send_again(packet: bytes, later: int, payload: bytes) -> None:
    """The packet (IPv4 and TCP) once more, beginning so many bytes later, with another payload."""
    internet = (packet[0] & 15) * 4
    segment = bytearray(packet[internet : internet + (packet[internet + 12] >> 4) * 4])
    (sequence,) = struct.unpack_from("!I", segment, 4)
    struct.pack_into("!I", segment, 4, sequence + later & 0xFFFFFFFF)
    segment[16:18] = bytes(2)
    whole = bytes(segment) + payload
    pseudo = packet[12:20] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(whole)) + whole
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo[: len(pseudo) // 2 * 2]))
    total += pseudo[-1] << 8 if len(pseudo) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    segment[16:18] = struct.pack("!H", ~total & 0xFFFF)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet[:internet] + bytes(segment) + payload, ("127.0.0.1", 0))


@pytest.mark.parametrize("way", ["in the same instant", "not blocking", "server first"])
def test_nothing_overtakes_the_first_bytes(host: Namespace, joining: Engine, way: str) -> None:
    """Who writes as soon as the handshake lets it: each message carries its number, on hundreds of connections."""
    rounds, messages = 300, 8
    with listener(host) as listening:
        address = listening.getsockname()
        ready = threading.Barrier(2)
        wrong: list[bytes] = []

        def serve() -> None:
            for _ in range(rounds):
                ready.wait(HANGS)
                end, _ = listening.accept()
                with end:
                    end.settimeout(HANGS)
                    if way == "server first":
                        for number in range(messages):
                            end.send(b"%04d" % number)
                        end.shutdown(socket.SHUT_WR)
                    else:
                        wrong.extend(unexpected(end))

        def unexpected(end: socket.socket) -> list[bytes]:
            got = b""
            while piece := end.recv(4096):
                got += piece
            return [] if got == b"".join(b"%04d" % number for number in range(messages)) else [got]

        serving = threading.Thread(target=serve)
        serving.start()
        for _ in range(rounds):
            client = call_inside(host, socket.socket)
            client.settimeout(HANGS)
            ready.wait(HANGS)
            if way == "not blocking":
                client.setblocking(False)
                assert client.connect_ex(address) in (0, errno.EINPROGRESS)
                select.select([], [client], [], HANGS)
            else:
                client.connect(address)
            if way == "server first":
                wrong.extend(unexpected(client))
            else:
                for number in range(messages):
                    client.send(b"%04d" % number)
            client.close()
        serving.join(HANGS)
    assert wrong == []
    counters = joining.counters()
    assert counters.joined == 2 * rounds
    assert counters.redirected + counters.passed == rounds * messages
    assert eventually(lambda: joining.survey().ends == 0)


def test_who_writes_before_the_other_end_has_joined_stays_on_tcp(host: Namespace, joining: Engine) -> None:
    """A client that holds its ACK back: the server's end begins with the client's first bytes."""
    with listener(host) as listening:
        client = call_inside(host, socket.socket)
        client.settimeout(HANGS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        client.connect(listening.getsockname())
        client.sendall(b"first")
        server, _ = listening.accept()
        assert eventually(lambda: readable(server) == 5)
        client.sendall(b" second")
        assert eventually(lambda: readable(server) == 12)
        assert server.recv(100) == b"first second"
        server.sendall(b"answer")
        assert eventually(lambda: readable(client) == 6)
        assert client.recv(100) == b"answer"
    counters = joining.counters()
    assert (counters.wrote_early, counters.redirected, counters.passed_unpaired) == (1, 0, 2)
    assert joining.survey().ends == 1  # the client's
    close(client, server)
    assert eventually(lambda: joining.survey().ends == 0)


def test_a_blocked_reader_is_woken_by_either_way(host: Namespace, joining: Engine) -> None:
    client, server = pair(host)
    for number in range(20):
        joining.switch(joining=True, redirecting=number % 3 != 0)
        got: list[bytes] = []
        reading = threading.Thread(target=lambda into: into.append(server.recv(100)), args=(got,))
        reading.start()
        client.send(b"%d" % number)
        reading.join(HANGS)
        assert got == [b"%d" % number]
    close(client, server)


def test_the_end_comes_after_the_last_byte(host: Namespace, joining: Engine) -> None:
    for _ in range(50):
        client, server = pair(host)
        client.sendall(b"x" * 100_000)
        client.close()
        got = 0
        while piece := server.recv(8192):
            got += len(piece)
        assert got == 100_000
        server.close()
    assert joining.counters().redirected


def test_what_was_sent_after_the_others_shutdown_is_read(host: Namespace, joining: Engine) -> None:
    client, server = pair(host)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"late")
    server.close()
    assert client.recv(100) == b"late"
    assert client.recv(100) == b""
    client.close()


def test_a_socket_that_is_connected_anew_reads_nothing_old(host: Namespace, joining: Engine) -> None:
    with listener(host) as listening:
        client = connect(host, *listening.getsockname())
        first, _ = listening.accept()
        first.sendall(b"old")
        assert eventually(lambda: readable(client) == 3)
        disconnect(client)
        client.connect(listening.getsockname())
        second, _ = listening.accept()
        second.sendall(b"new")
        assert client.recv(100) == b"new"
        assert joining.counters().connected_anew == 1
        close(client, first, second)


def test_a_socket_that_is_connected_anew_after_an_undo_reads_every_byte(host: Namespace) -> None:
    """Nobody tells us of it any more. Twenty times, as the numbers that its new peer begins with are any."""
    for _ in range(20):
        with engine(host) as going, listener(host) as listening:
            client = connect(host, *listening.getsockname())
            first, _ = listening.accept()
            first.sendall(b"old")
            assert client.recv(100) == b"old"
            assert going.counters().redirected == 1
            going.switch(joining=False, redirecting=False)
            going.detach()
            disconnect(client)
            client.connect(listening.getsockname())
            second, _ = listening.accept()
            for said in (b"new", b"and more"):
                second.sendall(said)
                assert client.recv(100) == said
            close(client, first, second)


def disconnect(connection: socket.socket) -> None:
    """connect(2) to AF_UNSPEC: Python's own connect() has no such address."""
    import ctypes

    nowhere = ctypes.create_string_buffer(16)
    assert ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), nowhere, 16) == 0


def test_what_waits_is_read_after_the_engine_has_gone(host: Namespace) -> None:
    """Its maps and programs live as long as a member, and no longer."""
    with engine(host) as going:
        maps = map_ids(going)
        client, server = pair(host)
        client.sendall(b"unread")
        assert going.survey().waiting_bytes == 6
        waiting, blocked = pair(host)
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(blocked.recv(100)))
        reading.start()
    assert in_kernel(maps) == maps
    client.sendall(b" and more")
    assert eventually(lambda: readable(server) == 15)
    assert server.recv(100) == b"unread and more"
    waiting.sendall(b"woken")
    reading.join(HANGS)
    assert got == [b"woken"]
    close(client, server, waiting, blocked)
    assert eventually(lambda: not in_kernel(maps))


def test_connections_by_the_hundred_leave_nothing(host: Namespace, joining: Engine) -> None:
    with listener(host) as listening:
        for _ in range(4):
            ends = []
            for number in range(200):
                client = connect(host, *listening.getsockname())
                server, _ = listening.accept()
                client.sendall(b"%d" % number)
                ends.append((client, server))
            assert joining.survey().connections == 200
            for number, (client, server) in enumerate(ends):
                assert server.recv(100) == b"%d" % number
                close(client, server)
            assert eventually(lambda: joining.survey().ends == 0)
    counters = joining.counters()
    assert counters.joined == counters.left == 1600
    assert [entries(joining, name) for name in ("pairs", "listed", "members")] == [0, 0, 0]
