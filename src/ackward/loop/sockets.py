"""Look: every TCP socket of this host at one moment, with the state of its ACKs and who holds it."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ackward.capture.live import Scope
from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel import descriptors, namespaces, proc_tcp, sock_diag
from ackward.kernel.descriptors import Holder, Holders, Options
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup2_mount
from ackward.kernel.proc_tcp import AckState
from ackward.kernel.processes import cgroup_path, container_of_cgroup
from ackward.kernel.route_lookup import RouteLookup
from ackward.kernel.sock_diag import SocketRecord, TcpState
from ackward.loop.suspicion import suspects, worst_first
from ackward.loop.watching import scope_of
from ackward.model.report import Process
from ackward.model.sockets import Socket, SocketNamespace, SocketReport, Timer
from ackward.model.units import plural

#: As `ss` has it: connections that carry or carried data. TIME_WAIT and SYN_RECV have no ACK state.
NOT_CONNECTED = frozenset(
    {TcpState.LISTEN, TcpState.CLOSE, TcpState.TIME_WAIT, TcpState.SYN_RECV, TcpState.NEW_SYN_RECV}
    | {TcpState.BOUND_INACTIVE}
)
CONNECTED = frozenset(TcpState) - NOT_CONNECTED
_TIMERS: dict[int, Timer] = {1: "retransmission", 2: "keepalive", 3: "time-wait", 4: "zero-window-probe"}
_US, _MS = 1_000, 1_000_000
#: Field of the model -> field of struct tcp_info and the unit that it is in.
_FROM_INFO = {
    "ato_ns": ("ato", _US),
    "unacked": ("unacked", 1),
    "unsent_bytes": ("notsent_bytes", 1),
    "srtt_ns": ("rtt", _US),
    "min_rtt_ns": ("min_rtt", _US),
    "rto_ns": ("rto", _US),
    "retransmitted": ("total_retrans", 1),
    "cwnd": ("snd_cwnd", 1),
    "mss": ("snd_mss", 1),
    "window_bytes": ("snd_wnd", 1),
    "since_sent_ns": ("last_data_sent", _MS),
    "since_received_ns": ("last_data_recv", _MS),
    "since_acked_ns": ("last_ack_recv", _MS),
    "bytes_sent": ("bytes_sent", 1),
    "bytes_received": ("bytes_received", 1),
    "window_limited_ns": ("rwnd_limited", _US),
    "buffer_limited_ns": ("sndbuf_limited", _US),
}
#: RTT_MIN before the first sample (tcp_min_rtt() of ~0U).
_NO_RTT = 0xFFFFFFFF


@dataclass
class _Seen:
    """What was read from one namespace."""

    namespace: Namespace
    records: list[SocketRecord]
    acks: dict[tuple[int, str, str], AckState] = field(default_factory=dict)
    quickack: dict[tuple[int, str, str], bool | None] = field(default_factory=dict)
    hidden_routes: int = 0
    delayed_acks: int | None = None


def sockets(
    *,
    port: int | None = None,
    netns: str | None = None,
    pid: int | None = None,
    cgroup: str | None = None,
    all_: bool = False,
    listening: bool = False,
) -> SocketReport:
    """The TCP sockets in sight, suspicious ones first; filters as those of :func:`ackward.watch`.

    Connections only; ``all_`` adds listeners and those without ACK state (TIME_WAIT, SYN_RECV), ``listening`` gives
    listeners alone. Works without privileges, with less to see: ``root_would_add`` says what.
    """
    scope = scope_of(port=port, netns=netns, pid=pid, cgroup=cgroup)
    states = {TcpState.LISTEN} if listening else frozenset(TcpState) if all_ else CONNECTED
    with _no_collector():
        return _report(scope, pid, frozenset(states), in_all=not netns)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Nothing here makes cycles, and to look for some among ten thousand records took a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _report(scope: Scope, pid: int | None, states: frozenset[TcpState], *, in_all: bool) -> SocketReport:
    holders = descriptors.holders()
    if pid is not None and not _may_read(pid):
        raise PrivilegeMissing.for_this_command(
            f"the descriptors of process {pid} may not be read", consequence="its sockets are not known"
        )
    notes: list[str] = []
    seen: list[_Seen] = []
    others = in_all and holders.hidden > 0 and os.geteuid() != 0
    wanted = _Filter.of(scope, pid, holders)
    # A process may hold sockets of any namespace, so a PID alone narrows none.
    for place in namespaces.in_sight() if in_all or scope.netns is None else [scope.netns]:
        try:
            seen.append(_look(place, states, wanted, notes))
        except PrivilegeMissing:
            if not in_all:
                raise
            others = True
        except (FileNotFoundError, ProcessLookupError):
            continue  # its last process ended in between
    options = _options(seen, holders)
    found = [_socket(one, record, holders, options) for one in seen for record in one.records]
    unseen = list(_unseen(found, holders, options, others=others))
    if by_mark := sum(one.hidden_routes for one in seen):
        unseen.append(f"the route of {plural(by_mark, 'connection')}, which depends on a mark")
    if os.geteuid() == 0:  # of a container, or held back by a security module: sudo would add nothing
        notes += [f"not even root may see {part}" for part in unseen]
    if options.classed:
        notes.append(
            f"Nagle's state of {plural(options.classed, 'socket')} was not read: a copy of its descriptor would "
            "change its net_cls or net_prio class (cgroup v1)"
        )
    return SocketReport(
        namespaces=[
            SocketNamespace(name=one.namespace.name, inode=one.namespace.inode, delayed_acks=one.delayed_acks)
            for one in seen
        ],
        sockets=sorted(_judged(found), key=worst_first),
        notes=notes,
        root_would_add=[] if os.geteuid() == 0 else unseen,
    )


@dataclass(frozen=True)
class _Filter:
    """What a record must be to be shown."""

    port: int | None
    inodes: frozenset[int] | None
    cgroup: str | None

    @classmethod
    def of(cls, scope: Scope, pid: int | None, holders: Holders) -> _Filter:
        """The filter of a scope; sockets belong to a process by their inodes."""
        inodes = None
        if pid is not None:
            inodes = frozenset(
                inode for inode, owners in holders.of.items() if any(owner.pid == pid for owner in owners)
            )
        cgroup = str(scope.cgroup.relative_to(cgroup2_mount())) if scope.cgroup else None
        return cls(scope.port, inodes, cgroup)

    def passes(self, record: SocketRecord) -> bool:
        """Whether all parts agree."""
        return (
            (self.port is None or self.port in (record.local[1], record.remote[1]))
            and (self.inodes is None or record.inode in self.inodes)
            and (self.cgroup is None or self._below(record.cgroup_id))
        )

    def _below(self, cgroup_id: int | None) -> bool:
        path = cgroup_path(cgroup_id) if cgroup_id is not None else None
        return path is not None and (self.cgroup == "." or f"{path}/".startswith(f"{self.cgroup}/"))


def _may_read(pid: int) -> bool:
    try:
        next(Path(f"/proc/{pid}/fd").iterdir(), None)
    except PermissionError:
        return False
    except FileNotFoundError:
        return True  # it ended: it has no sockets
    return True


def _look(place: Namespace, states: frozenset[TcpState], wanted: _Filter, notes: list[str]) -> _Seen:
    try:
        records = sock_diag.dump(place, states)
        rows = proc_tcp.read(place)
    except PrivilegeMissing:
        raise
    except Unavailable as error:
        notes.append(f"{error.missing}: only what /proc tells is shown for {place.name}")
        rows = proc_tcp.read(place)
        records = list(proc_tcp.records(rows, states))
    if wanted.cgroup is not None and records and all(record.cgroup_id is None for record in records):
        raise Unavailable(
            "this kernel does not tell the cgroup of a socket (INET_DIAG_CGROUP_ID)",
            consequence="--cgroup cannot be obeyed",
            next_step="use --pid, --port or --netns",
        )
    seen = _Seen(place, [record for record in records if wanted.passes(record)])
    if seen.records:
        seen.acks = proc_tcp.ack_states(rows)
        with RouteLookup(place) as routes:
            seen.quickack = {
                record.key: routes.quickack(record) for record in seen.records if record.state in CONNECTED
            }
            seen.hidden_routes = routes.hidden
    seen.delayed_acks = proc_tcp.delayed_acks(place)
    return seen


def _options(seen: Iterable[_Seen], holders: Holders) -> Options:
    def connections() -> Iterator[tuple[int, Holder]]:
        for one in seen:
            for record in one.records:
                if record.state in CONNECTED and record.inode in holders.of:
                    yield record.inode, holders.of[record.inode][0]

    return descriptors.send_options(connections())


def _socket(seen: _Seen, record: SocketRecord, holders: Holders, options: Options) -> Socket:
    listener = record.state == TcpState.LISTEN
    connected = record.state in CONNECTED
    owners = holders.of.get(record.inode, ())
    option = options.of.get(record.inode)
    ack = seen.acks.get(record.key) if connected else None
    info = _measured(record.info if connected else {})
    unsent = info["unsent_bytes"]
    return Socket(
        state=TcpState(record.state).name,
        local=_end(record.local),
        remote=None if listener else _end(record.remote),
        netns=seen.namespace.inode,
        process=_process(owners[0] if owners else None, record.cgroup_id, seen.namespace.name),
        other_pids=[owner.pid for owner in owners[1:]],
        cgroup=_cgroup(record.cgroup_id),
        uid=record.uid,
        inode=record.inode,
        cookie=record.cookie,
        mark=record.mark,
        congestion_control=record.congestion_control,
        quick=ack.quick if ack else None,
        pingpong=ack.pingpong if ack else None,
        route_quickack=seen.quickack.get(record.key),
        nodelay=option.nodelay if option else None,
        cork=option.cork if option else None,
        unacked_bytes=None if unsent is None else max(record.write_queue - unsent, 0),
        unread_bytes=record.read_queue if connected else None,
        accept_queue=record.read_queue if listener else None,
        accept_queue_limit=record.write_queue if listener else None,
        timer=_TIMERS.get(record.timer),
        timer_expires_ns=record.expires_ms * _MS if record.timer in _TIMERS else None,
        retransmits=record.retransmits,
        **info,
    )


def _measured(info: dict[str, int]) -> dict[str, int | None]:
    """What struct tcp_info says, in the model's names and units; a round trip that was never measured is None."""
    found = {
        name: None if (value := info.get(source)) is None else value * unit
        for name, (source, unit) in _FROM_INFO.items()
    }
    found["srtt_ns"] = found["srtt_ns"] or None
    if info.get("min_rtt") == _NO_RTT:
        found["min_rtt_ns"] = None
    return found


@functools.lru_cache(maxsize=1 << 10)
def _process(owner: Holder | None, cgroup_id: int | None, netns: str) -> Process:
    return Process(
        pid=owner.pid if owner else None,
        command=owner.command if owner else None,
        container=None if cgroup_id is None else container_of_cgroup(cgroup_id),
        netns=netns,
    )


def _cgroup(cgroup_id: int | None) -> str | None:
    path = None if cgroup_id is None else cgroup_path(cgroup_id)
    return None if path is None else "/" if path == "." else f"/{path}"


def _end(end: tuple[str, int]) -> str:
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


def _judged(found: list[Socket]) -> Iterator[Socket]:
    """Each socket with its suspects, told with the other end where that is on this host and cannot be mistaken."""
    ends: dict[tuple[str, str | None], list[Socket]] = {}
    for socket in found:
        ends.setdefault((socket.local, socket.remote), []).append(socket)
    for socket in found:
        others = ends.get((socket.remote or "", socket.local), [])
        if len(others) > 1:  # equal addresses in several namespaces: loopback is the one that is certain
            others = [other for other in others if other.netns == socket.netns]
        reasons = suspects(socket, others[0] if len(others) == 1 else None)
        yield socket.model_copy(update={"suspects": reasons}) if reasons else socket


def _unseen(found: list[Socket], holders: Holders, options: Options, *, others: bool) -> Iterator[str]:
    """What privileges keep from this report."""
    if holders.hidden:
        unowned = sum(socket.inode != 0 and socket.process.pid is None for socket in found)
        if unowned:
            yield f"the process and Nagle's state of {plural(unowned, 'socket')}"
    if others:
        yield "sockets in other network namespaces"
    if options.denied:
        yield f"Nagle's state of {plural(options.denied, 'socket')}"
