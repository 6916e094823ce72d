"""Sockets to flows: the two ends of one connection, if both were watched, become one flow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, overload

import numpy as np

from ackward.diagnosis.segmented import Ints
from ackward.model.segments import Endpoint, Kind, Recording, Segments, SocketFacts, Vantage

SeenFrom = Literal["client", "server", "both", "between"]
SEEN_FROM: tuple[SeenFrom, ...] = ("client", "server", "both", "between")


@dataclass(frozen=True)
class Flow:
    """One connection.

    ``client_end`` and ``server_end`` are null where that host's kernel was not asked. ``min_rtt_ns`` is the smallest
    round trip that anybody measured; 0 if nobody did.
    """

    client: Endpoint
    server: Endpoint
    seen_from: SeenFrom
    min_rtt_ns: int
    client_end: SocketFacts | None = None
    server_end: SocketFacts | None = None
    mptcp: bool = False
    bytes_to_server: int = 0
    bytes_to_client: int = 0


@dataclass(frozen=True)
class Flows(Sequence[Flow]):
    """Flows by number, made when they are asked for: captures have many, and of most only the columns are needed.

    ``seen_from`` numbers :data:`SEEN_FROM`, ``min_rtt`` is in nanoseconds, one entry a flow each.
    """

    seen_from: Ints
    min_rtt: Ints
    one: Callable[[int], Flow]

    @classmethod
    def of(cls, flows: Sequence[Flow]) -> Self:
        """Flows that are there already."""
        return cls(
            np.array([SEEN_FROM.index(flow.seen_from) for flow in flows], np.int64),
            np.array([flow.min_rtt_ns for flow in flows], np.int64),
            flows.__getitem__,
        )

    @property
    def primary(self) -> Ints:
        """The vantage point that decides when exchanges begin and end: the client's own view where there is one."""
        return np.where(self.seen_from == SEEN_FROM.index("server"), Vantage.SERVER, Vantage.CLIENT)

    def __len__(self) -> int:
        return len(self.min_rtt)

    @overload
    def __getitem__(self, index: int) -> Flow: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Flow | Self:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return self.one(numbers)
        return replace(
            self,
            seen_from=self.seen_from[index],
            min_rtt=self.min_rtt[index],
            one=lambda number: self.one(numbers[number]),
        )


def _of_ends(
    names: tuple[Endpoint, Endpoint], client: SocketFacts | None, server: SocketFacts | None
) -> Flow:
    ends = [end for end in (client, server) if end]
    sent = (
        (client.bytes_sent, client.bytes_received) if client else (ends[0].bytes_received, ends[0].bytes_sent)
    )
    return Flow(
        *names,
        "both" if client and server else "client" if client else "server",
        min((end.min_rtt_ns for end in ends if end.min_rtt_ns), default=0),
        client,
        server,
        any(end.mptcp for end in ends),
        *sent,
    )


def _names(socket: SocketFacts) -> tuple[Endpoint, Endpoint]:
    return (socket.local, socket.remote) if socket.is_client else (socket.remote, socket.local)


def one_client_each(sockets: Sequence[SocketFacts]) -> list[SocketFacts]:
    """The sockets, so that of a connection that was watched at both ends exactly one is the client.

    Where the handshake was not seen each end was judged by itself, from who listens and from ports. Of two ends that
    came out the same, one keeps its role: the one whose handshake was seen, else the one that its port suits better.
    """
    ends: dict[tuple[Endpoint, Endpoint], list[SocketFacts]] = defaultdict(list)
    for socket in sockets:
        ends[socket.local, socket.remote].append(socket)

    def told(socket: SocketFacts) -> SocketFacts:
        others = ends.get((socket.remote, socket.local), [])
        agreed = any(other.is_client != socket.is_client for other in others)
        if agreed or all(other is socket or _certainty(socket) > _certainty(other) for other in others):
            return socket
        return replace(socket, is_client=not socket.is_client)

    return [told(socket) for socket in sockets]


def _certainty(socket: SocketFacts) -> tuple[bool, bool]:
    """A sort key; never equal at both ends of a connection that have the same role."""
    ports = [(end.port, int(end.address)) for end in (socket.local, socket.remote)]
    return socket.role_seen, (ports[0] > ports[1]) == socket.is_client


def _overlap(segments: Segments, client: SocketFacts, server: SocketFacts) -> bool:
    """Whether both sockets saw the same data: tells apart pods that use the same addresses in their own namespaces."""
    sent = segments[
        (segments["flow"] == client.flow) & (segments["bytes"] > 0) & (segments["kind"] == Kind.SENT)
    ]
    received = segments[
        (segments["flow"] == server.flow) & (segments["bytes"] > 0) & (segments["kind"] == Kind.RECEIVED)
    ]
    return bool(len(np.intersect1d(sent["seq"], received["seq"])))


def join(recording: Recording) -> tuple[Flows, Segments]:
    """The flows, and the segments with ``flow`` renumbered to index them and ``vantage`` and ``to_server`` set.

    Ends are paired by their four addresses. Where several namespaces use the same ones, only ends that saw the same
    sequence numbers are paired. Flows of which a part was shed are left out whole.
    """
    sockets = one_client_each(recording.sockets)
    clients: dict[tuple[Endpoint, Endpoint], list[SocketFacts]] = defaultdict(list)
    servers: dict[tuple[Endpoint, Endpoint], list[SocketFacts]] = defaultdict(list)
    shed = {_names(socket) for socket in sockets if socket.shed}
    for socket in sockets:
        if _names(socket) not in shed:
            (clients if socket.is_client else servers)[_names(socket)].append(socket)

    flows: list[Flow] = []
    for names, candidates in clients.items():
        others = servers.get(names, [])
        for client in candidates:
            server = _partner(recording.segments, client, candidates, others)
            if server:
                others.remove(server)
            flows.append(_of_ends(names, client, server))
    flows.extend(_of_ends(names, None, server) for names, rest in servers.items() for server in rest)
    return Flows.of(flows), _renumber(recording.segments, flows)


def _partner(
    segments: Segments, client: SocketFacts, candidates: Sequence[SocketFacts], others: Sequence[SocketFacts]
) -> SocketFacts | None:
    if len(candidates) == 1 and len(others) == 1:
        return others[0]
    return next((server for server in others if _overlap(segments, client, server)), None)


def _renumber(segments: Segments, flows: Sequence[Flow]) -> Segments:
    highest = int(segments["flow"].max()) if len(segments) else 0
    index = np.full(highest + 1, -1, np.int32)
    vantage = np.zeros(highest + 1, np.uint8)
    for number, flow in enumerate(flows):
        for end, where in ((flow.client_end, Vantage.CLIENT), (flow.server_end, Vantage.SERVER)):
            if end and end.flow <= highest:
                index[end.flow], vantage[end.flow] = number, where
    kept = segments[index[segments["flow"]] >= 0].copy()
    kept["vantage"] = vantage[kept["flow"]]
    kept["flow"] = index[kept["flow"]]
    kept["to_server"] = (kept["vantage"] == Vantage.CLIENT) == (kept["kind"] != Kind.RECEIVED)
    ordered: Segments = kept[np.lexsort((kept["time_ns"], kept["flow"]))]
    return ordered
