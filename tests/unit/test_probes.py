"""Probes: what is concluded from recorded answers of a kernel; tests/kernel asks a real one."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel.btf import Btf
from ackward.kernel.machine import Machine
from ackward.kernel.probes import PROBES, Probe, cgroup2_mount, probe, probe_all
from ackward.kernel.questions import (
    ENOTSUPP,
    KPROBES,
    MOUNTS,
    STATUS,
    USERS,
    capabilities,
    inside_namespace,
    judge,
    mounts,
)
from ackward.model.doctor import Outcome, ProbeResult

YES, NO, UNSURE = Outcome.YES, Outcome.NO, Outcome.UNSURE

HYBRID = """\
23 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
37 31 0:34 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
29 23 0:26 / /sys/fs/bpf rw,nosuid,nodev,noexec,relatime shared:9 - bpf bpf rw,mode=700
"""
# A container whose own cgroup is bound over part of the tree, before the whole of it.
CONTAINER = """\
812 790 0:26 /../../kubepods/pod7 /var/lib/with\\040space rw,relatime - cgroup2 cgroup2 rw
813 790 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw
"""
EVERYTHING, NOTHING = "CapEff:\t000001fffeffffff\n", "CapEff:\t0000000000000000\n"
WHOLE_HOST, ROOTLESS = "         0          0 4294967295\n", "         0       1000          1\n"


def no_btf() -> Btf:
    raise Unavailable(
        "/sys/kernel/btf/vmlinux cannot be read: the kernel was built without it",
        consequence="no program can be loaded",
        next_step="boot another kernel",
    )


def recorded(files: dict[Path, str] | None = None, **answers: Any) -> Machine:
    """A machine on which everything works, but for what a test says otherwise."""
    texts = {
        STATUS: EVERYTHING,
        USERS: WHOLE_HOST,
        MOUNTS: HYBRID,
        KPROBES: "8\n",
    }
    texts |= files or {}

    def read(path: Path) -> str:
        if path not in texts:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return texts[path]

    working: dict[str, Any] = {
        "read": read,
        "user": lambda: 0,
        "btf": no_btf,
        "libbpf": lambda: "libbpf.so.1",
        "load_program": lambda *_: 0,
        "attach_raw_tracepoint": lambda _: 0,
        "create_map": lambda *_: 0,
        "socket_option": lambda *_: 0,
        "mptcp_socket": lambda: 0,
        "pidfd_getfd": lambda: 0,
        "inside": lambda _: (0, ""),
    }
    return Machine(**working | answers)


def ask(name: str, machine: Machine) -> ProbeResult:
    return probe(next(row for row in PROBES if row.name == name), machine)


def refuse(number: int) -> Any:
    return lambda *_: number


@pytest.mark.parametrize(
    ("number", "lacking", "outcome"),
    [
        (0, [], YES),
        (0, ["CAP_BPF"], YES),  # an old kernel lets anybody load some programs
        (errno.EPERM, ["CAP_BPF"], UNSURE),
        (errno.EACCES, ["CAP_BPF"], UNSURE),
        (errno.EPERM, [], NO),
        (errno.EINVAL, [], NO),
        (errno.EINVAL, ["CAP_BPF"], NO),
        (errno.E2BIG, [], NO),
        (errno.ENOENT, [], NO),
        (errno.ENOPROTOOPT, [], NO),
        (errno.ENOSYS, [], NO),
        (ENOTSUPP, [], NO),
        (errno.ENOMEM, [], UNSURE),
        (errno.EINTR, [], UNSURE),
    ],
)
def test_what_an_errno_says(number: int, lacking: list[str], outcome: Outcome) -> None:
    assert judge(number, lacking=lacking)[0] is outcome


def test_names_are_unique_and_every_absence_has_its_cost() -> None:
    assert len({row.name for row in PROBES}) == len(PROBES)
    assert all(row.costs and not row.costs.endswith(".") for row in PROBES)


def test_everything_works_on_a_machine_where_everything_works() -> None:
    outcomes = {result.name: result.outcome for result in probe_all(recorded())}
    without_btf = {"kernel BTF": NO, "fentry": UNSURE, "tracefs": NO}
    without_btf |= dict.fromkeys(("icsk_delack_timer", "dst_quick_ack", "net_cookie"), UNSURE)
    assert {name: outcome for name, outcome in outcomes.items() if outcome is not YES} == without_btf


def test_without_privileges_nothing_that_needs_one_is_called_absent() -> None:
    def inside(_: list[str]) -> tuple[int, str]:
        raise PrivilegeMissing(
            "making a network namespace needs root", consequence="nothing was done", next_step="be root"
        )

    nobody = recorded(
        {STATUS: NOTHING},
        user=lambda: 65534,
        load_program=refuse(errno.EPERM),
        attach_raw_tracepoint=refuse(errno.EPERM),
        create_map=refuse(errno.EPERM),
        inside=inside,
    )
    results = {result.name: result for result in probe_all(nobody)}
    for group in ("BPF maps", "tracepoints", "network"):
        assert {result.outcome for result in results.values() if result.group == group} == {UNSURE}
    assert results["root"].outcome is NO
    assert results["CAP_BPF"].outcome is NO
    assert results["cgroup_skb"].outcome is UNSURE
    assert results["cgroup_skb"].detail == "cannot be tried without CAP_BPF and CAP_NET_ADMIN"
    assert results["raw_tracepoint"].detail == "cannot be tried without CAP_BPF and CAP_PERFMON"
    assert results["TCP_QUICKACK"].outcome is YES


def test_a_program_type_that_root_may_not_load_is_absent() -> None:
    result = ask("sk_msg", recorded(load_program=refuse(errno.EPERM)))
    assert result.outcome is NO
    assert "all capabilities are there" in result.detail


def test_struct_ops_is_known_by_the_errno_for_a_missing_struct() -> None:
    assert ask("struct_ops", recorded(load_program=refuse(ENOTSUPP))).outcome is YES
    assert ask("sk_msg", recorded(load_program=refuse(ENOTSUPP))).outcome is NO


def test_a_kernel_without_kprobes_is_known_by_their_missing_file() -> None:
    machine = recorded()
    texts = {path: machine.read(path) for path in (STATUS, USERS, MOUNTS)}

    def read(path: Path) -> str:
        if path not in texts:
            raise FileNotFoundError(path)
        return texts[path]

    assert ask("kprobe", recorded(read=read)).outcome is NO
    assert ask("kprobe", machine).outcome is YES


def test_capabilities_of_a_rootless_container_do_not_count_for_bpf() -> None:
    rootless = recorded({USERS: ROOTLESS})
    assert capabilities(rootless) == {"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
    assert ask("CAP_BPF", rootless).outcome is NO
    assert "user namespace" in ask("CAP_BPF", rootless).detail
    assert ask("root", rootless).outcome is NO


def test_sys_admin_includes_what_older_kernels_had_no_name_for() -> None:
    sys_admin_only = f"CapEff:\t{1 << 21:016x}\n"
    assert capabilities(recorded({STATUS: sys_admin_only})) == {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"}
    assert capabilities(recorded({STATUS: NOTHING})) == set()


def test_cgroup_v2_is_where_the_kernel_says_and_the_whole_tree_is_preferred() -> None:
    assert cgroup2_mount(recorded()) == Path("/sys/fs/cgroup/unified")
    assert mounts(CONTAINER, "cgroup2") == [Path("/sys/fs/cgroup"), Path("/var/lib/with space")]
    assert mounts(HYBRID, "cgroup2") == [Path("/sys/fs/cgroup/unified")]
    assert mounts("", "cgroup2") == []
    assert mounts("cut off - cgroup2", "cgroup2") == []


def test_no_cgroup_v2_says_how_to_mount_it() -> None:
    with pytest.raises(Unavailable, match=r"not mounted.*Next: .*mount -t cgroup2"):
        cgroup2_mount(recorded({MOUNTS: ""}))


@pytest.mark.parametrize(
    ("code", "complaint", "outcome"),
    [
        (0, "", YES),
        (1, 'Error: argument "ipproto" is wrong: Failed to parse rule type', UNSURE),
        (2, "Error: Specified qdisc kind is unknown.", NO),
    ],
)
def test_a_tool_that_cannot_ask_is_not_a_kernel_that_refuses(
    code: int, complaint: str, outcome: Outcome
) -> None:
    question = inside_namespace("ip rule add", syntax_error=1)
    assert question(recorded(inside=lambda _: (code, complaint)))[0] is outcome


def test_a_missing_tool_is_unsure_and_named() -> None:
    def inside(argv: list[str]) -> tuple[int, str]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", argv[0])

    result = ask("NFQUEUE", recorded(inside=inside))
    assert result.outcome is UNSURE
    assert "iptables" in result.detail


def test_a_question_that_hangs_is_unsure_and_does_not_keep_the_rest() -> None:
    release = threading.Event()

    def question(_: Machine) -> tuple[Outcome, str]:
        release.wait()
        return YES, ""

    try:
        result = probe(Probe("test", "hanging", "nothing", question), recorded(), seconds=0.01)
    finally:
        release.set()
    assert result.outcome is UNSURE
    assert result.detail == "no answer within 0.01 s"


def test_a_fault_of_ours_is_not_an_outcome() -> None:
    def question(_: Machine) -> tuple[Outcome, str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe(Probe("test", "faulty", "nothing", question), recorded())
