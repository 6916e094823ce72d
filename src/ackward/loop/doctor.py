"""``doctor``: what this host allows ackward to do, and which of its settings make somebody wait."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ackward.kernel.probes import probe_all
from ackward.kernel.settings import HostFacts, NamespaceFacts, host_facts, settings_in_sight
from ackward.loop.judgement import judge
from ackward.model.doctor import Ability, DoctorReport, Judgement, NamespaceReport, Outcome, ProbeResult


@dataclass(frozen=True)
class Need:
    """What a command cannot do without, and what it does better with, by names of probes."""

    command: str
    required: tuple[str, ...] = ()
    helpful: tuple[str, ...] = ()


_SEEING = (
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_NET_ADMIN",
    "kernel BTF",
    "cgroup v2",
    "libbpf",
    "cgroup_skb",
    "raw_tracepoint",
    "ring buffer",
    "hash that grows",
)
_SEEING_MORE = (
    "sock_send_length",
    "icsk_delack_timer",
    "inet_sock_set_state",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
)
_ROUTES = ("CAP_NET_ADMIN", "quickack on a route")
_PORTS = (*_ROUTES, "rule by port")

_STEERING = ("CAP_BPF", "CAP_NET_ADMIN", "kernel BTF", "cgroup v2", "bpffs", "libbpf", "sock_ops")

NEEDS = (
    Need("watch", _SEEING, _SEEING_MORE),
    Need("trace", _SEEING, _SEEING_MORE),
    Need("sockets", (), ("CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "pidfd_getfd")),
    Need("fix quickack", _ROUTES, ("CAP_SYS_ADMIN",)),
    Need("fix quickack --port", _PORTS, ("CAP_SYS_ADMIN",)),
    Need("fix quickack --prove", (*_ROUTES, *_SEEING), _SEEING_MORE),
    Need("fix nodelay", _STEERING, ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "pidfd_getfd")),
    Need("fix initcwnd", _ROUTES, ("CAP_SYS_ADMIN",)),
    Need("fix bypass", (*_STEERING, "sk_msg", "sk_skb", "sched_cls"), ("CAP_SYS_ADMIN",)),
    Need("status"),
    Need("undo", ("CAP_NET_ADMIN",), ("CAP_SYS_ADMIN",)),
    Need("gateway run", ("root",), ("sk_lookup", "NFQUEUE")),
    Need("node agent", ("root", "CAP_SYS_ADMIN", *_ROUTES)),
    Need("lab run", ("CAP_SYS_ADMIN", *_ROUTES, *_SEEING), _SEEING_MORE),
)


def examine() -> DoctorReport:
    """Probe this host and judge its settings; takes about a second and changes nothing."""
    facts, notes = settings_in_sight()
    return report(os.uname().release, probe_all(), facts, host_facts(facts), notes)


def report(
    kernel: str,
    probes: Sequence[ProbeResult],
    namespaces: Sequence[NamespaceFacts],
    host: HostFacts,
    notes: Sequence[str] = (),
) -> DoctorReport:
    """The report on facts that were found: pure."""
    outcomes = {result.name: result for result in probes}
    commands = [ability(need, outcomes) for need in NEEDS]
    judged = [
        NamespaceReport(
            namespaces=[namespace.name for namespace in one.namespaces], settings=judge(one, host)
        )
        for one in namespaces
    ]
    return DoctorReport(
        kernel=kernel,
        hz=host.hz,
        verdict=verdict(commands, judged),
        commands=commands,
        probes=list(probes),
        namespaces=judged,
        notes=list(notes),
    )


def ability(need: Need, outcomes: dict[str, ProbeResult]) -> Ability:
    """Whether a command works with these outcomes, and what it lacks."""
    required = [outcomes[name] for name in dict.fromkeys(need.required)]
    absent = [result for result in required if result.outcome is Outcome.NO]
    untold = [result for result in required if result.outcome is Outcome.UNSURE]
    losses = [outcomes[name] for name in need.helpful if outcomes[name].outcome is not Outcome.YES]
    if absent:
        return Ability(command=need.command, works="no", why=f"needs {_enumerated(absent)}")
    if untold:
        return Ability(command=need.command, works="unsure", why=f"could not tell: {_enumerated(untold)}")
    if losses:
        costs = dict.fromkeys(f"without {result.name}: {result.costs}" for result in losses)
        return Ability(command=need.command, works="partly", why="; ".join(costs))
    return Ability(command=need.command, works="yes")


def _enumerated(results: Sequence[ProbeResult]) -> str:
    """Names, with what is known of each but for privileges, whose absence explains itself."""
    return ", ".join(
        result.name
        if result.group == "privileges" or not result.detail
        else f"{result.name} ({result.detail})"
        for result in results
    )


def verdict(commands: Sequence[Ability], namespaces: Sequence[NamespaceReport]) -> str:
    """One line: what works here and what hurts."""
    working = sum(command.works in ("yes", "partly") for command in commands)
    works = f"{working} of {len(commands)} commands work here"
    if working == len(commands):
        works = "all commands work here"
    hurting = {
        setting.name for one in namespaces for setting in one.settings if setting.judgement is Judgement.HURTS
    }
    if not hurting:
        return f"{works}; no setting makes anybody wait"
    noun = "setting makes" if len(hurting) == 1 else "settings make"
    return f"{works}; {len(hurting)} {noun} somebody wait: {', '.join(sorted(hurting))}"
