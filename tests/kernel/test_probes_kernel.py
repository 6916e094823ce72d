"""Probes and settings against the running kernel: what is said is so, and nothing stays behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.polling import eventually

from ackward.kernel.bpf_syscall import AttachType, ProgramType, attach_raw_tracepoint, load_program
from ackward.kernel.machine import LINUX
from ackward.kernel.namespaces import Namespace, call_inside, in_sight, temporary
from ackward.kernel.probes import cgroup2_mount, probe_all
from ackward.kernel.settings import (
    DIRECTORY,
    HostFacts,
    NamespaceFacts,
    Route,
    group,
    pingpong_threshold,
    read_settings,
    ticks_per_second,
)
from ackward.loop.judgement import judge
from ackward.model.doctor import DoctorReport, Judgement, Outcome

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="probe 'root' said no")
HOST = HostFacts(None, None)
COMMAND = [sys.executable, "-c", "from ackward.cli.main import main; main()", "doctor", "--json"]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with temporary("test-doctor") as made:
        yield made


def inside(namespace: Namespace, line: str) -> str:
    argv = ["ip", "netns", "exec", namespace.name, *line.split()]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def write_setting(namespace: Namespace, name: str, value: str) -> None:
    call_inside(namespace, (DIRECTORY / name).write_text, value)


@needs_root
def test_what_probes_make_is_gone_when_they_have_answered() -> None:
    probe_all()  # what is loaded once and kept (libraries, BTF) is loaded now
    before = len(list(Path("/proc/self/fd").iterdir()))
    probe_all()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    left = [found.name for found in in_sight() if found.name.startswith(f"ackward-doctor-{os.getpid()}-")]
    assert left == []
    if shutil.which("bpftool"):
        # The kernel frees programs after a grace period.
        assert eventually(lambda: "ackward_probe" not in shown_programs())


def shown_programs() -> str:
    return subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True).stdout


@needs_root
def test_the_kernel_tells_a_tracepoint_from_a_name_that_is_none() -> None:
    assert attach_raw_tracepoint("sched_switch") == 0
    assert attach_raw_tracepoint("ackward_never_was") == errno.ENOENT


@needs_root
def test_the_kernel_refuses_a_program_without_its_attach_type() -> None:
    assert load_program(ProgramType.SK_LOOKUP, AttachType.SK_LOOKUP) == 0
    assert load_program(ProgramType.SK_LOOKUP, AttachType.UNSPECIFIED) == errno.EINVAL


@needs_root
def test_commands_in_a_namespace_tell_success_refusal_and_syntax() -> None:
    assert LINUX.inside(["ip", "link", "show", "lo"]) == (0, "")
    assert LINUX.inside(["ip", "link", "set", "ackward9", "up"])[0] == 1  # it looks the device up itself
    code, complaint = LINUX.inside(["ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1"])
    assert code == 2
    assert complaint
    assert LINUX.inside(["ip", "rule", "add", "ackward"])[0] in (1, 255)


def test_cgroup_v2_is_a_cgroup_v2() -> None:
    assert (cgroup2_mount() / "cgroup.controllers").exists()


def test_the_tick_is_one_that_linux_can_have() -> None:
    assert ticks_per_second() in (100, 250, 300, 1000, 1024)  # kernel/Kconfig.hz; 1024 on alpha


@needs_root
@pytest.mark.parametrize("threshold", [1, 2, 3, 4])
def test_the_measured_threshold_is_the_one_that_was_set(namespace: Namespace, threshold: int) -> None:
    if not (DIRECTORY / "tcp_pingpong_thresh").exists():
        pytest.skip("this kernel has its threshold built in")
    write_setting(namespace, "tcp_pingpong_thresh", str(threshold))
    assert call_inside(namespace, pingpong_threshold) == threshold


def test_a_threshold_can_be_measured_here_without_root() -> None:
    assert pingpong_threshold() in range(1, 6)


@needs_root
def test_a_threshold_that_cannot_be_measured_is_none(namespace: Namespace) -> None:
    inside(namespace, "ip link set lo down")
    assert call_inside(namespace, pingpong_threshold) is None


@needs_root
def test_settings_are_those_of_the_namespace_not_of_the_caller(namespace: Namespace) -> None:
    here = (DIRECTORY / "tcp_sack").read_text().strip()
    other = "0" if here == "1" else "1"
    write_setting(namespace, "tcp_sack", other)
    assert read_settings(namespace).sysctls["tcp_sack"] == other
    assert (DIRECTORY / "tcp_sack").read_text().strip() == here


@needs_root
def test_the_given_command_ends_the_hurt_in_every_namespace_of_a_group(namespace: Namespace) -> None:
    with temporary("test-doctor") as second:
        for one in (namespace, second):
            write_setting(one, "tcp_early_retrans", "0")
        (together,) = group([read_settings(namespace), read_settings(second)])
        setting = next(found for found in judge(together, HOST) if found.name == "tcp_early_retrans")
        assert setting.judgement is Judgement.HURTS
        assert setting.command
        subprocess.run(["sh", "-c", setting.command], check=True, capture_output=True)
        assert {read_settings(one).sysctls["tcp_early_retrans"] for one in (namespace, second)} == {"3"}


def defaults(facts: NamespaceFacts) -> list[Route]:
    return [route for route in facts.routes or () if route.destination == "default"]


@needs_root
@pytest.mark.parametrize("family", [4, 6])
def test_the_command_for_a_route_changes_its_window_and_nothing_else(
    namespace: Namespace, family: int
) -> None:
    gateway, address = ("192.0.2.1", "192.0.2.2/24") if family == 4 else ("2001:db8::1", "2001:db8::2/64")
    inside(namespace, "ip link add eth0 type veth peer name eth1")
    inside(namespace, "ip link set eth1 up")
    inside(namespace, "ip link set eth0 up")
    inside(namespace, f"ip -{family} addr add {address} dev eth0" + (" nodad" if family == 6 else ""))
    source = address.split("/")[0]
    words = f"default via {gateway} dev eth0 proto static src {source} metric 300 mtu 1400 initrwnd 20"
    inside(namespace, f"ip -{family} route add {words} initcwnd 4 quickack 1")
    facts = read_settings(namespace)
    before = inside(namespace, f"ip -{family} route show default")
    assert [(route.initcwnd, route.initrwnd, route.quickack) for route in defaults(facts)] == [(4, 20, True)]

    setting = next(found for found in judge(facts, HOST) if found.name == f"initcwnd of IPv{family} default")
    assert setting.judgement is Judgement.HURTS
    assert setting.command
    subprocess.run(["sh", "-c", setting.command], check=True, capture_output=True)
    assert inside(namespace, f"ip -{family} route show default") == before.replace(
        "initcwnd 4", "initcwnd 10"
    )


@needs_root
def test_the_report_as_root_and_as_nobody() -> None:
    as_root = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    report = DoctorReport.model_validate_json(as_root.stdout)
    assert report.kernel == os.uname().release
    assert {found.name: found.outcome for found in report.probes}["root"] is Outcome.YES

    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    if subprocess.run(
        [*nobody, sys.executable, "-c", "import ackward"], capture_output=True, check=False
    ).returncode:
        pytest.skip("another user cannot run this Python")
    unprivileged = subprocess.run([*nobody, *COMMAND], capture_output=True, text=True, check=True)
    assert "could not tell without root. " in unprivileged.stderr
    assert "Next: run `sudo" in unprivileged.stderr
    outcomes = {found["name"]: found["outcome"] for found in json.loads(unprivileged.stdout)["probes"]}
    assert (outcomes["root"], outcomes["CAP_BPF"]) == ("no", "no")
    assert outcomes["TCP_QUICKACK"] == "yes"
    works = {found["command"]: found["works"] for found in json.loads(unprivileged.stdout)["commands"]}
    assert (works["watch"], works["fix quickack"], works["status"]) == ("no", "no", "yes")
