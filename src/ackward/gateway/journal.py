"""The gateway's log: one line a connection, and what strangers do wrong once, then counted.

Workers hand lines to the supervisor over a datagram socket and never wait for it: a terminal that was stopped, or a
full pipe, must not hold up connections. How many lines found no room is told as soon as there is some. Names from
outside are made visible (:mod:`ackward.model.names`): no line of the log can be forged by somebody else's name.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

from ackward.gateway.allow import AllowList
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open
from ackward.gateway.settings import Address, ConnectionRecord, LegFailure, Retirement, StuckRecord
from ackward.model.names import visible

#: How many different complaints are told apart between two counts.
MOST_COMPLAINTS = 256
#: Longer lines are cut.
LONGEST = 1000


def address(place: Address) -> str:
    """``HOST:PORT``, IPv6 in brackets."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connection_line(record: ConnectionRecord) -> str:
    """A connection that is over, as ``key=value`` in one line."""
    connected = "-" if record.connect_seconds is None else f"{record.connect_seconds:.6f}"
    return visible(
        f"connection listener={record.listener} client={address(record.client)} "
        f"destination={address(record.destination)} peer={record.peer or '-'} early={'yes' if record.early else 'no'} "
        f"to_server={record.to_server} to_client={record.to_client} connected={connected} "
        f"lasted={record.seconds:.6f} end={record.end}"
    )


def failure_line(failure: LegFailure) -> str:
    """A leg that did not come to be; or what is no failure: a peer that drains, or is there again."""
    place = address(failure.address)
    if failure.error is None:
        return visible(f"peer {failure.peer} connected again at={place}")
    if isinstance(failure.error, Retirement):
        return visible(f"peer {failure.peer} takes no new connections at={place}: {failure.reason}")
    return visible(f"leg with={failure.peer or 'a-stranger'} at={place} failed={failure.reason}")


def stuck_line(record: StuckRecord) -> str:
    """A connection of which an end acknowledges no long segments, and what that can mean."""
    what, where = record.what, address(record.address)
    head = f"stuck peer={record.peer or '-'} at={where} client={address(record.client)}: "
    if not record.peer:
        remedy = "net.ipv4.tcp_mtu_probing=1 here finds the size"
    elif record.accepted:
        remedy = "set exit.mss, or net.ipv4.tcp_mtu_probing=1"
    else:
        remedy = f"set peer.{record.peer}.mss, or net.ipv4.tcp_mtu_probing=1"
    if record.went_on:
        return visible(
            f"{head}it went on when routers were allowed to fragment its segments of {what.segment} bytes: the path "
            f"has an MTU black hole (or was gone for a while); {remedy}"
        )
    others = "while others behind them were" if what.others_arrive else "and nothing behind them was"
    fragments = "; routers may fragment them from now on" if record.fragments else ""
    return visible(
        f"{head}segments of {what.segment} bytes (path MTU taken to be {what.path_mtu}) were not acknowledged "
        f"{what.timeouts} times in a row, {others}: an MTU black hole, or the path is gone{fragments}; {remedy}"
    )


class Once:
    """Says each complaint at once and then, until the next summary, only counts it. Never holds more than a few."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._lines: dict[tuple[str, ...], str] = {}

    def lines(self, key: tuple[str, ...], line: str) -> Iterator[str]:
        """What is to be written now because of this complaint."""
        if key not in self._counts and len(self._counts) >= MOST_COMPLAINTS:
            key, line = ("others",), "more complaints about others than can be told apart"
        count = self._counts[key] = self._counts.get(key, 0) + 1
        self._lines[key] = line
        if count == 1:
            yield line

    def summary(self, *about: str) -> Iterator[str]:
        """What was only counted, of complaints whose key begins so, and begin anew."""
        for key in [key for key in self._counts if key[: len(about)] == about]:
            count, line = self._counts.pop(key), self._lines.pop(key)
            if count > 1:
                yield f"{line} ({count - 1} times more)"


class Journal:
    """Both ends of the way from the workers to the log; made before they are forked."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.reader, self._writer):
            end.settimeout(0)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._lost = 0

    def write(self, line: str) -> None:
        """Hand a line over, or lose it."""
        try:
            if self._lost:
                self._writer.send(f"log lines lost={self._lost}".encode())
                self._lost = 0
            self._writer.send(line[:LONGEST].encode())
        except BlockingIOError:
            self._lost += 1

    def read(self) -> Iterator[str]:
        """What waits to be written."""
        while True:
            try:
                yield self.reader.recv(8 * LONGEST).decode()
            except BlockingIOError:
                return

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self._writer.close()


class WorkerHooks:
    """What a worker tells and asks: :class:`ackward.gateway.settings.Hooks`."""

    def __init__(self, journal: Journal, allow: Mapping[str, AllowList], *, connections: bool = True) -> None:
        self._journal, self._allow, self._connections = journal, allow, connections
        self._once = Once()

    def ended(self, record: ConnectionRecord) -> None:
        """One line."""
        if self._connections:
            self._journal.write(connection_line(record))

    def leg_failed(self, failure: LegFailure) -> None:
        """One line for the first of its kind; a peer that is there again ends what there was to say of it."""
        error = failure.error
        if error is None:
            for each in (*self._once.summary("leg", failure.peer), failure_line(failure)):
                self._journal.write(each)
            return
        kind = error.reason.name if isinstance(error, LegFailed) else type(error).__name__
        # Not by what strangers can choose: their port, and the key that they name.
        self._complain(("leg", failure.peer, failure.address[0], kind), failure_line(failure))

    def stuck(self, record: StuckRecord) -> None:
        """One line for the first on this path."""
        kind = "went-on" if record.went_on else "stuck"
        self._complain((record.peer, record.address[0], kind), stuck_line(record))

    def turned_away(self, listener: str, client: Address, why: str) -> None:
        """One line for the first at this listener for this reason."""
        line = f"turned away listener={listener} client={address(client)}: {why}"
        self._complain((listener, why), visible(line))

    def permits(self, peer: str, wanted: Open) -> bool:
        """Whether the peer's allow-list has the destination; a refusal is told once."""
        host, port = wanted.destination
        if self._allow.get(peer, AllowList()).permits(host, port):
            return True
        place = address((str(host), port))
        self._complain((peer, place), f"forbidden peer={peer} destination={place}: not in peer.{peer}.allow")
        return False

    def recount(self) -> None:
        """How often each complaint came since then."""
        for each in self._once.summary():
            self._journal.write(each)

    def _complain(self, key: tuple[str, ...], line: str) -> None:
        for each in self._once.lines(key, line):
            self._journal.write(each)
