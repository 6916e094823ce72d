"""The bypass joins connections from their first byte on, keeps all bytes in order, bounds what waits, and leaves nothing."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kernel.bypass_hosts import (
    HANGS,
    both_ways,
    connect,
    engine,
    entries,
    in_kernel,
    listener,
    map_ids,
    pair,
    readable,
)
from tests.kernel.quickack_hosts import eventually, ip
from tests.kernel.steering_hosts import CGROUP, cgroup, moved_into

from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.model.bypass import Hazard
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.rules import Manner


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with temporary("bypass") as made:
        yield made


@pytest.fixture
def joining(host: Namespace) -> Iterator[Engine]:
    with engine(host) as made:
        yield made


def close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


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


def test_a_slow_reader_stops_its_writer_and_gets_every_byte(host: Namespace) -> None:
    with engine(host, most_bytes=100_000) as bounded:
        client, server = pair(host)
        client.setblocking(False)
        # So that TCP's own buffers are small beside what a writer without a bound would get rid of.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        sent = _sent_until_it_blocks(client, most=100 << 20)
        # The bound, one message more, and what TCP's window let in.
        assert bounded.survey().most_waiting_bytes < 100_000 + 7000 + 200_000
        counters = bounded.counters()
        assert counters.passed_full
        assert counters.redirected
        got = b""
        while len(got) < len(sent):
            got += server.recv(65_536)
        assert got == sent
        client.setblocking(True)
        client.sendall(b"goes on")
        assert server.recv(100) == b"goes on"
        assert eventually(lambda: _redirects_again(bounded, client, server))
        close(client, server)


def _sent_until_it_blocks(writer: socket.socket, most: int) -> bytes:
    sent = b""
    while len(sent) < most:
        piece = os.urandom(997) * 7
        try:
            sent += piece[: writer.send(piece)]
        except BlockingIOError:
            return sent
    raise AssertionError(f"nobody stopped it after {most} bytes")


def _redirects_again(bounded: Engine, client: socket.socket, server: socket.socket) -> bool:
    before = bounded.counters().redirected
    client.sendall(b"x")
    assert server.recv(100) == b"x"
    return bounded.counters().redirected > before


def test_a_writer_that_was_stopped_goes_on_when_its_reader_reads(host: Namespace) -> None:
    """Not at TCP's next window probe, 0.2 s later or more: bytes that closed the window have none of ours behind them."""
    ip(host, "link", "set", "lo", "mtu", "1500")
    try:
        with engine(host, most_bytes=256 << 10) as bounded:
            waits = [_longest_wait(host, bounded, size) for size in (4000, 20_000, 60_000, 200_000) * 2]
            assert bounded.counters().passed_full
            assert bounded.counters().redirected
    finally:
        ip(host, "link", "set", "lo", "mtu", "65536")
    assert max(waits) < 0.2, waits


def _longest_wait(host: Namespace, bounded: Engine, size: int) -> float:
    """The longest that a reader has to wait that lets its writer run into the bound first, seconds."""
    client, server = pair(host)
    pieces = (20 << 20) // size

    def write() -> None:
        for _ in range(pieces):
            client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)

    writing = threading.Thread(target=write)
    writing.start()
    assert eventually(_unchanged_for(0.1, bounded.counters))
    longest, got = 0.0, 0
    while True:
        began = time.monotonic()
        piece = server.recv(65_536)
        longest = max(longest, time.monotonic() - began)
        if not piece:
            break
        got += len(piece)
    writing.join(HANGS)
    assert got == pieces * size
    close(client, server)
    return longest


def _unchanged_for(seconds: float, look: Callable[[], object]) -> Callable[[], bool]:
    last, since = look(), time.monotonic()

    def unchanged() -> bool:
        nonlocal last, since
        if (now := look()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    return unchanged


def test_many_small_messages_are_bounded_by_their_number(host: Namespace) -> None:
    with engine(host, most_messages=64) as bounded:
        client, server = pair(host)
        for _ in range(1000):
            client.send(b"x")
        counters = bounded.counters()
        assert counters.redirected == 64
        assert counters.passed_many
        got = 0
        while got < 1000:
            got += len(server.recv(100))
        assert eventually(lambda: _redirects_again(bounded, client, server))
        close(client, server)


@pytest.mark.skipif(
    not os.environ.get("CI"),
    reason="changes tcp_mem, which is the whole machine's: only where nobody else works",
)
def test_where_memory_is_short_messages_go_over_tcp(host: Namespace, joining: Engine) -> None:
    """Redirected, they would fail with ENOMEM where TCP waits."""
    limits = Path("/proc/sys/net/ipv4/tcp_mem")  # of the machine, in pages: low, pressure, high
    before = limits.read_text()
    client, server = pair(host)
    try:
        limits.write_text(f"0 0 {before.split()[2]}")
        assert eventually(lambda: _passes(joining, client, server))
    finally:
        limits.write_text(before)
    assert eventually(lambda: _redirects_again(joining, client, server))
    close(client, server)


def _passes(joining: Engine, client: socket.socket, server: socket.socket) -> bool:
    before = joining.counters().passed_memory
    client.sendall(b"x" * 10_000)
    got = 0
    while got < 10_000:
        got += len(server.recv(10_000))
    return joining.counters().passed_memory > before


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


def disconnect(connection: socket.socket) -> None:
    """connect(2) to AF_UNSPEC: Python's own connect() has no such address."""
    import ctypes

    nowhere = ctypes.create_string_buffer(16)
    assert ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), nowhere, 16) == 0


def test_the_same_addresses_and_ports_in_two_namespaces_never_meet(host: Namespace) -> None:
    with temporary("bypass-twin") as twin, engine(host) as here, engine(twin) as there:
        sockets = []
        for place, said in ((host, b"here"), (twin, b"there")):
            listening = listener(place, port=7411)
            client = call_inside(place, socket.socket)
            client.settimeout(HANGS)
            client.bind(("127.0.0.1", 7412))
            client.connect(("127.0.0.1", 7411))
            server, _ = listening.accept()
            client.sendall(said)
            sockets.append((listening, client, server, said))
        for _, _, server, said in sockets:
            assert server.recv(100) == said
        assert here.counters().redirected_bytes == 4
        assert there.counters().redirected_bytes == 5
        for listening, client, server, _ in sockets:
            close(listening, client, server)


class TestWhoStaysOut:
    """Each is counted by its reason, and works as before."""

    def test_another_namespace(self, host: Namespace, joining: Engine) -> None:
        with temporary("bypass-other") as other:
            close(*pair(other))
            assert joining.counters().joined == 0

    def test_another_port(self, host: Namespace) -> None:
        with listener(host) as listening:
            port = listening.getsockname()[1]
            for ports, joined in (((port, port), 2), ((1, port - 1), 0), ((port - 1, port + 1), 2)):
                with engine(host, BypassScope(ports=ports, joins="all")) as made:
                    client = connect(host, "127.0.0.1", port)
                    close(client, listening.accept()[0])
                    assert made.counters().joined == joined

    @pytest.mark.parametrize(
        ("scope", "joined"),
        [
            (BypassScope(to="127.0.0.0/8"), True),
            (BypassScope(to="10.0.0.0/8"), False),
            (BypassScope(source="127.0.0.1/32", to="127.0.0.1/32"), True),
            (BypassScope(source="::1/128"), False),
            (BypassScope(excluded_networks=("10.0.0.0/8", "127.0.0.0/8")), False),
            (BypassScope(excluded_networks=("10.0.0.0/8",)), True),
            (BypassScope(excluded_ports=((1, 65535),)), False),
        ],
        ids=lambda value: value.words if isinstance(value, BypassScope) else None,
    )
    def test_other_addresses(self, host: Namespace, scope: BypassScope, joined: bool) -> None:
        with engine(host, scope.model_copy(update={"joins": "all"})) as made:
            client, server = pair(host)
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            assert made.counters().redirected == joined
            close(client, server)

    def test_another_cgroup(self, host: Namespace) -> None:
        with cgroup() as place:
            scope = BypassScope(cgroup=f"/{CGROUP.name}", joins="all")
            with engine(host, scope, cgroup_id=place.stat().st_ino) as made:
                close(*pair(host))
                assert made.counters().joined == 0
                with moved_into(place):
                    close(*pair(host))
                assert made.counters().joined == 2
                with listener(host) as outside, moved_into(place):
                    close(connect(host, *outside.getsockname()), outside.accept()[0])
                assert made.counters().joined == 4  # one end is enough

    def test_multipath(self, host: Namespace, joining: Engine) -> None:
        def both() -> tuple[socket.socket, ...]:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen()
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
                client.connect(listening.getsockname())
                return client, listening.accept()[0]

        client, server = call_inside(host, both)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert joining.counters().joined == 0
        assert joining.counters().mptcp
        close(client, server)

    def test_a_listener_that_waits_for_the_first_bytes(self, host: Namespace, joining: Engine) -> None:
        with listener(host) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            client = connect(host, *listening.getsockname())
            client.sendall(b"first")
            server, _ = listening.accept()
            assert readable(server) == 5
            assert server.recv(100) == b"first"
            assert joining.counters().joined == 0
            assert joining.counters().peculiar == 1
            close(client, server)

    def test_fast_open(self, host: Namespace, joining: Engine) -> None:
        def ask() -> None:
            Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(
                "1027"
            )  # client, server, without a cookie: Documentation/networking/ip-sysctl.rst

        call_inside(host, ask)
        with listener(host) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
            client = call_inside(host, socket.socket)
            client.sendto(b"early", socket.MSG_FASTOPEN, listening.getsockname())
            server, _ = listening.accept()
            assert server.recv(100) == b"early"
            server.sendall(b"back")
            assert client.recv(100) == b"back"
            close(client, server)
        assert joining.counters().joined == 0
        assert joining.counters().fast_open


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


class TestLearning:
    """A service's first connections show on plain TCP whether the next ones profit."""

    @pytest.fixture
    def learning(self, host: Namespace) -> Iterator[Engine]:
        with engine(host, BypassScope()) as made:
            yield made

    def connection(self, listening: socket.socket, host: Namespace) -> tuple[socket.socket, socket.socket]:
        """Both ends poll: a timeout makes Python set O_NONBLOCK, before connect()."""
        client = connect(host, *listening.getsockname())
        server, _ = listening.accept()
        server.settimeout(HANGS)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server

    def take_turns(self, ends: tuple[socket.socket, socket.socket], times: int) -> None:
        client, server = ends
        for _ in range(times):
            client.sendall(b"question")
            assert server.recv(100) == b"question"
            server.sendall(b"answer")
            assert client.recv(100) == b"answer"

    def test_who_takes_turns_joins(self, host: Namespace, learning: Engine) -> None:
        with listener(host) as listening:
            first = self.connection(listening, host)
            self.take_turns(first, 20)
            assert learning.services() == []  # too early to tell
            self.take_turns(first, 20)
            (service,) = learning.services()
            assert service.port == listening.getsockname()[1]
            assert service.manner is Manner.JOINS
            # While the first is open and stays what it is, the next one joins.
            second = self.connection(listening, host)
            self.take_turns(second, 5)
            counters = learning.counters()
            assert (counters.sampled, counters.joined, counters.redirected) == (1, 2, 10)
            close(*first, *second)

    def test_short_connections_are_learned_together(self, host: Namespace, learning: Engine) -> None:
        with listener(host) as listening:
            for _ in range(20):
                ends = self.connection(listening, host)
                self.take_turns(ends, 1)
                close(*ends)
        counters = learning.counters()
        assert counters.sampled + counters.joined // 2 == 20
        assert 8 <= counters.sampled < 16

    def test_who_streams_stays_on_tcp(self, host: Namespace, learning: Engine) -> None:
        with listener(host) as listening:
            for _ in range(3):
                client, server = self.connection(listening, host)
                for _ in range(100):
                    client.sendall(b"line")
                    server.recv(100)
                close(client, server)
        (service,) = learning.services()
        assert service.manner is Manner.STREAMS
        counters = learning.counters()
        assert (counters.sampled, counters.joined, counters.streams) == (1, 0, 2)

    def test_who_blocks_in_recv_stays_on_tcp(self, host: Namespace, learning: Engine) -> None:
        with listener(host) as listening:
            for blocking in ("server", "server", "client"):
                client, server = self.connection(listening, host)
                server.setblocking(blocking == "server")
                self.take_turns((client, server), 40) if blocking == "server" else None
                close(client, server)
            assert learning.services()[0].manner is Manner.BLOCKS
            assert learning.counters().blocks == 2
            assert learning.counters().joined == 0

            def connect_blocking() -> socket.socket:
                client = socket.socket()
                client.connect(listening.getsockname())
                return client

        with listener(host) as listening:
            client = call_inside(host, connect_blocking)
            close(client, listening.accept()[0])
            assert learning.counters().blocks == 3
            assert learning.counters().sampled == 1

    def test_who_blocks_in_recv_joins_if_that_was_accepted(self, host: Namespace) -> None:
        scope = BypassScope(accepted=(Hazard.WAITALL, Hazard.WAKEUP, Hazard.SHUT_READ))
        with engine(host, scope) as learning, listener(host) as listening:
            for _ in range(2):
                client, server = self.connection(listening, host)
                server.setblocking(True)
                self.take_turns((client, server), 40)
                close(client, server)
            assert learning.services()[0].manner is Manner.JOINS
            assert learning.counters().joined == 2

    def test_options_that_a_sock_map_ignores_keep_a_service_out(
        self, host: Namespace, learning: Engine
    ) -> None:
        with listener(host) as listening:
            for _ in range(2):
                client, server = self.connection(listening, host)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
                self.take_turns((client, server), 40)
                close(client, server)
        assert learning.services()[0].manner is Manner.PECULIAR
        assert learning.counters().peculiar == 1
        assert learning.counters().joined == 0

    def test_a_service_may_change_its_ways(self, host: Namespace, learning: Engine) -> None:
        """One in 32 connections is sampled again, whatever was learned."""
        with listener(host) as listening:
            for number in range(80):
                client, server = self.connection(listening, host)
                if number < 3:
                    self.take_turns((client, server), 40)
                else:
                    for _ in range(200):
                        client.sendall(b"line")
                        server.recv(100)
                close(client, server)
        counters = learning.counters()
        assert counters.sampled >= 2
        assert counters.joined
        assert counters.streams
        assert learning.services()[0].manner is Manner.STREAMS
