"""What this kernel and these privileges allow: a table of probes, each tried for real, with three outcomes.

No version is ever compared: a probe does the thing, or finds the field, and undoes it at once. Its outcome is
``unsure`` if it could not tell, most often for want of a privilege.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import AckwardError, Unavailable
from ackward.kernel.bpf_syscall import BPF_F_NO_PREALLOC, AttachType, MapType, ProgramType
from ackward.kernel.machine import LINUX, Machine
from ackward.kernel.questions import (
    MOUNTS,
    Answer,
    Question,
    bpf_map,
    capability,
    fentry,
    field,
    inside_namespace,
    judge,
    kernel_types,
    kprobes,
    libbpf_found,
    mounted,
    mounts,
    program,
    root,
    tcp_option,
    tracepoint,
)
from ackward.model.doctor import Outcome, ProbeResult


@dataclass(frozen=True)
class Probe:
    """A row of the table: ``question`` finds out, ``costs`` says what absence costs the user."""

    group: str
    name: str
    costs: str
    question: Question


def cgroup2_mount(machine: Machine = LINUX) -> Path:
    """Where cgroup v2 is mounted. Raises :class:`Unavailable` if nowhere."""
    places = mounts(machine.read(MOUNTS), "cgroup2")
    if not places:
        raise Unavailable(
            "cgroup v2 is not mounted",
            consequence="there is nothing to attach the hooks that see segments to",
            next_step="mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    return places[0]


def cgroup_directory(cgroup: str | None) -> Path:
    """The directory of a cgroup (v2) below the mount; of the whole hierarchy for none. Raises :class:`Unavailable`."""
    return cgroup2_mount() / (cgroup or "").lstrip("/")


def probe(row: Probe, machine: Machine = LINUX, *, seconds: float = 3.0) -> ProbeResult:
    """Ask one question; no answer within ``seconds``, or an error on the way to it, is ``unsure``."""
    answers: list[Answer] = []
    faults: list[BaseException] = []

    def body() -> None:
        try:
            answers.append(row.question(machine))
        except (AckwardError, OSError) as error:
            missing = error.missing if isinstance(error, AckwardError) else str(error)
            answers.append((Outcome.UNSURE, missing))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            faults.append(error)

    # A daemon, because a call that hangs in the kernel cannot be ended and must not keep the report.
    thread = threading.Thread(target=body, name=f"probe {row.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    outcome, detail = answers[0] if answers else (Outcome.UNSURE, f"no answer within {seconds:g} s")
    return ProbeResult(name=row.name, group=row.group, outcome=outcome, detail=detail, costs=row.costs)


def probe_all(machine: Machine = LINUX) -> list[ProbeResult]:
    """Ask every question of :data:`PROBES`, in its order."""
    return [probe(row, machine) for row in PROBES]


def _group(name: str, *rows: tuple[str, Question, str]) -> list[Probe]:
    return [Probe(name, row, costs, question) for row, question, costs in rows]


_NO_WATCH = "nothing can be watched live"
_NO_BYPASS = "no bypass between two programs of this host"
_INFERRED = "delayed ACKs are inferred from timing, not observed"
_NO_NEED = "nothing is lost: raw tracepoints serve instead"
_P, _A = ProgramType, AttachType
_NET, _PERF = "CAP_NET_ADMIN", "CAP_PERFMON"

#: Every ability that ackward uses or would like to use.
PROBES: tuple[Probe, ...] = (
    *_group(
        "privileges",
        ("root", root, "nothing can be watched live or changed; /proc still tells what it tells everyone"),
        ("CAP_BPF", capability("CAP_BPF"), f"no BPF program can be loaded: {_NO_WATCH}"),
        (_PERF, capability(_PERF), f"BPF may not read kernel memory: {_NO_WATCH}"),
        (_NET, capability(_NET), "no route, rule or hook can be set: no watch, no fix"),
        (
            "CAP_SYS_ADMIN",
            capability("CAP_SYS_ADMIN"),
            "no other network namespace can be entered or made: no lab",
        ),
        (
            "CAP_SYS_PTRACE",
            capability("CAP_SYS_PTRACE"),
            "other users' processes hide their namespaces and sockets",
        ),
    ),
    *_group(
        "host",
        ("kernel BTF", kernel_types, f"the fields of this kernel's sockets cannot be found: {_NO_WATCH}"),
        ("cgroup v2", mounted("cgroup2", "/sys/fs/cgroup/unified"), f"segments cannot be seen: {_NO_WATCH}"),
        (
            "bpffs",
            mounted("bpf", "/sys/fs/bpf"),
            "no remedy made of BPF outlives its command; quickack needs none",
        ),
        ("tracefs", mounted("tracefs", "/sys/kernel/tracing"), _NO_NEED),
        ("libbpf", libbpf_found, f"BPF programs cannot be fitted to this kernel: {_NO_WATCH}"),
    ),
    *_group(
        "BPF programs",
        ("cgroup_skb", program(_P.CGROUP_SKB, _A.UNSPECIFIED, _NET), f"segments cannot be seen: {_NO_WATCH}"),
        (
            "raw_tracepoint",
            program(_P.RAW_TRACEPOINT, _A.UNSPECIFIED, _PERF),
            f"no writes and no ends of connections: {_NO_WATCH}",
        ),
        ("sock_ops", program(_P.SOCK_OPS, _A.CGROUP_SOCK_OPS, _NET), "no remedy can be scoped by cgroup"),
        ("sk_msg", program(_P.SK_MSG, _A.SK_MSG_VERDICT, _NET), _NO_BYPASS),
        ("sk_skb", program(_P.SK_SKB, _A.SK_SKB_STREAM_VERDICT, _NET), _NO_BYPASS),
        (
            "sk_lookup",
            program(_P.SK_LOOKUP, _A.SK_LOOKUP, _NET),
            "a gateway cannot take over a range of ports",
        ),
        ("sched_cls", program(_P.SCHED_CLS, _A.UNSPECIFIED, _NET), _NO_BYPASS),
        ("fentry", fentry, _NO_NEED),
        ("kprobe", kprobes, _NO_NEED),
        (
            "struct_ops",
            program(_P.STRUCT_OPS, _A.UNSPECIFIED, _PERF),
            "nothing is lost: no remedy of today needs it",
        ),
    ),
    *_group(
        "BPF maps",
        ("ring buffer", bpf_map(MapType.RINGBUF, 0, 0, 4096), f"events cannot leave the kernel: {_NO_WATCH}"),
        (
            "hash that grows",
            bpf_map(MapType.HASH, 8, 8, 4, BPF_F_NO_PREALLOC),
            f"a table for all sockets would take its whole memory at once: {_NO_WATCH}",
        ),
    ),
    *_group(
        "tracepoints",
        (
            "sock_send_length",
            tracepoint("sock_send_length"),
            "when a program wrote is unknown: a write held by Nagle is inferred, not observed",
        ),
        (
            "sock_recv_length",
            tracepoint("sock_recv_length"),
            "when a program read is unknown: no `fix bypass --prove`",
        ),
        (
            "inet_sock_set_state",
            tracepoint("inet_sock_set_state"),
            "connections that open and close while watched are noticed late",
        ),
        ("timer_start", tracepoint("timer_start"), "armed ACK timers are not seen, only fired ones"),
        ("tcp_probe", tracepoint("tcp_probe"), "nothing is lost: cgroup_skb sees the same segments"),
        (
            "tcp_retransmit_skb",
            tracepoint("tcp_retransmit_skb"),
            "retransmissions are told by sequence numbers only",
        ),
        (
            "tcp_rcv_space_adjust",
            tracepoint("tcp_rcv_space_adjust"),
            "when a program took its data is unknown",
        ),
    ),
    *_group(
        "kernel fields",
        (
            "icsk_delack_timer",
            field("inet_connection_sock", "icsk_delack_timer"),
            f"fired ACK timers cannot be recognised: {_INFERRED}",
        ),
        (
            "dst_quick_ack",
            field("inet_connection_sock", "icsk_ack.dst_quick_ack"),
            "nothing is lost: an open connection obeys a changed route at once",
        ),
        ("net_cookie", field("net", "net_cookie"), "namespaces are told apart by numbers that may be reused"),
    ),
    # Option numbers: include/uapi/linux/tcp.h. 40 ms lies in the range that the kernel allows at any HZ.
    *_group(
        "sockets",
        ("TCP_QUICKACK", tcp_option(12, 1), "a program cannot ask for ACKs at once"),
        ("TCP_DELACK_MAX_US", tcp_option(46, 40_000), "a program cannot bound how long its ACKs are delayed"),
        (
            "TCP_RTO_MIN_US",
            tcp_option(45, 40_000),
            "a program cannot lower its shortest retransmission timeout",
        ),
        ("MPTCP", lambda machine: judge(machine.mptcp_socket()), "nothing is lost: programs speak plain TCP"),
        (
            "pidfd_getfd",
            lambda machine: judge(machine.pidfd_getfd()),
            "TCP_NODELAY cannot be set on a connection that is already open",
        ),
    ),
    # Exit codes: man 8 ip (1 syntax, 2 the kernel's error), man 8 iptables (2 syntax, 1 other errors).
    *_group(
        "network",
        (
            "quickack on a route",
            inside_namespace("ip route add 192.0.2.0/24 dev lo quickack 1", syntax_error=1),
            "no route can make this host ACK at once: no `fix quickack`",
        ),
        (
            "rule by port",
            inside_namespace("ip rule add ipproto tcp sport 7301 lookup 7301", syntax_error=1),
            "quickack cannot be limited to a port, only to whole routes",
        ),
        (
            "netem",
            inside_namespace("tc qdisc add dev lo root netem delay 1ms", syntax_error=1),
            "the lab delays packets through NFQUEUE instead",
        ),
        (
            "NFQUEUE",
            inside_namespace(
                "iptables -t mangle -A PREROUTING -p tcp -j NFQUEUE --queue-num 1", syntax_error=2
            ),
            "a gateway cannot be faithful; without netem too, the lab has no long-distance links",
        ),
    ),
)
