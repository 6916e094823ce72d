"""The commands as a user runs them: watch, fix --prove, undo, and what they say when something is missing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.kernel.cgroups import removed
from tests.kernel.lab_hosts import ACKWARD, ackward, ackward_json, program
from tests.polling import eventually

from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup2_mount
from ackward.lab import programs
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.topology import TwoHosts

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@contextmanager
def traffic(hosts: TwoHosts, shape: Shape):
    """Load that goes on until the end: one connection after another. Gives a list that grows by each that has ended."""
    ended = threading.Event()
    done: list[int] = []

    def ask():
        while not ended.is_set():
            process = lab.peer(hosts.client, "load", hosts.server_address(shape.family), shape)
            process.communicate(timeout=60)
            done.append(process.returncode)

    with lab.server(hosts, shape):
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield done
        finally:
            ended.set()
            thread.join()


def test_watch_names_the_stall_its_ends_and_the_fix(hosts):
    with traffic(hosts, Shape(rounds=20)):
        report = ackward_json("watch", "--port", "7000", "--for", "3s")
    finding = report["findings"][0]
    assert finding["cause"] == "standoff"
    assert finding["grade"] == "observed"
    assert (finding["holding_end"], finding["delaying_end"]) == ("client", "server")
    assert "python" in finding["client_process"]["command"]
    assert finding["server_process"]["netns"] == hosts.server.name
    best = finding["remedies"][0]
    assert best["command"] == f"ackward fix quickack --port 7000 --netns {hosts.server.name}"
    assert sum(cause["ns"] for cause in report["causes"].values()) == report["elapsed_ns"]


def test_the_fix_that_watch_names_works_and_undo_brings_the_stall_back(hosts):
    """The loop by hand: watch, run the very command that it prints, watch, undo, watch."""
    with traffic(hosts, Shape(rounds=20)):
        seen = ackward_json("watch", "--port", "7000", "--for", "2s")
        command = seen["findings"][0]["remedies"][0]["command"].split()
        assert ackward(*command[1:]).returncode == 0
        try:
            fixed = ackward_json("watch", "--port", "7000", "--for", "2s", "--slow", "0ns")
            assert "standoff" not in fixed["causes"]
            assert fixed["exchanges"] > 10 * seen["exchanges"]
        finally:
            [receipt] = ackward_json("status")["remedies"]
            assert ackward("undo", receipt["receipt"]["id"]).returncode == 0
        again = ackward_json("watch", "--port", "7000", "--for", "2s")
        assert again["findings"][0]["cause"] == "standoff"


def test_prove_keeps_what_helps(hosts):
    with traffic(hosts, Shape(rounds=20)):
        proof = ackward_json(
            "fix", "quickack", "--netns", hosts.server.name, "--port", "7000", "--prove", "2s"
        )
    try:
        assert proof["verdict"]["result"] == "improved"
        assert proof["verdict"]["after"]["p50_ns"] < proof["verdict"]["before"]["p50_ns"] / 10
    finally:
        assert ackward("undo", proof["receipt"]["id"]).returncode == 0


def test_prove_undoes_what_does_not_help(hosts):
    with traffic(hosts, Shape(rounds=20, nagle=False, latency=5)):
        proof = ackward_json(
            "fix", "quickack", "--netns", hosts.server.name, "--port", "7000", "--prove", "1s", code=5
        )
    assert proof["receipt"] is None
    assert ackward_json("status")["remedies"] == []


def test_prove_without_traffic_says_so_and_changes_nothing(hosts):
    done = ackward("fix", "quickack", "--netns", hosts.server.name, "--port", "7000", "--prove", "200ms")
    assert done.returncode == 5
    assert "no request was seen" in done.stderr
    assert ackward_json("status")["remedies"] == []


def test_with_nothing_wrong_watch_says_where_the_time_went(hosts):
    with traffic(hosts, Shape(rounds=200, nagle=False)):
        done = ackward("watch", "--netns", hosts.server.name, "--for", "1500ms")
    assert done.returncode == 0
    assert "server" in done.stdout
    assert "standoff" not in done.stdout


def test_watch_can_be_narrowed_to_a_process(hosts):
    shape = Shape(rounds=10_000)
    with lab.server(hosts, shape), lab.peer(hosts.client, "load", hosts.server_address(4), shape) as load:
        try:
            load.stdout.readline()
            report = ackward_json("watch", "--pid", str(load.pid), "--for", "1500ms")
        finally:
            load.kill()
            load.communicate()
    assert {flow["client_process"]["pid"] for flow in report["flows"]} == {load.pid}
    assert report["findings"][0]["holding_end"] == "client"


@contextmanager
def a_cgroup(name):
    """A cgroup of the v2 hierarchy, and the words in front of a command that is to run in it."""
    group = cgroup2_mount() / name
    group.mkdir()
    try:
        yield group.name, ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        assert eventually(lambda: removed(group))


def test_watch_can_be_narrowed_to_a_cgroup(hosts):
    shape = Shape(rounds=10_000)
    with a_cgroup(f"ackward-test-{os.getpid()}") as (group, inside), lab.server(hosts, shape):
        load = programs.command("ackward.lab.peer", "load", hosts.server_address(4), shape.to_json())
        with program(hosts.client, [*inside, *load]) as mine, program(hosts.client, load) as other:
            mine.stdout.readline()
            other.stdout.readline()
            report = ackward_json("watch", "--cgroup", group, "--for", "1500ms")
    assert len(report["flows"]) == 1


def test_a_watched_cgroup_has_the_connections_that_it_accepts_and_no_others(hosts):
    shape, container = Shape(rounds=20, nagle=False), f"{os.getpid():08x}" * 8
    serve = programs.command("ackward.lab.peer", "serve", "::", shape.to_json())
    with (
        a_cgroup(container) as (group, inside),
        program(hosts.server, [*inside, *serve]) as server,
        program(hosts.client, serve) as elsewhere,
        subprocess.Popen(
            [ACKWARD, "watch", "--cgroup", group, "--for", "2s", "--json"], stdout=subprocess.PIPE, text=True
        ) as watch,
    ):
        assert server.stdout.readline() == elsewhere.stdout.readline() == "ready\n"
        _wait_until_attached(watch.pid)
        for host, address in (
            (hosts.client, hosts.server_address(4)),
            (hosts.server, hosts.client_address(4)),
        ):
            with program(
                host, programs.command("ackward.lab.peer", "load", address, shape.to_json())
            ) as load:
                assert load.wait(timeout=30) == 0
        flows = json.loads(watch.communicate(timeout=30)[0])["flows"]
    assert [flow["server_process"]["container"] for flow in flows] == [container[:12]]


def test_ctrl_c_ends_early_and_still_reports(hosts):
    with traffic(hosts, Shape(rounds=20)) as done:
        process = subprocess.Popen(
            [ACKWARD, "watch", "--port", "7000", "--for", "10m", "--json"], stdout=subprocess.PIPE, text=True
        )
        _wait_until_attached(process.pid)
        before = len(done)
        assert eventually(lambda: len(done) >= before + 2, within=30)  # one of them began after the watch
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(output)["exchanges"] >= 20


def test_ctrl_c_counts_also_where_it_cannot_be_raised():
    """As in libbpf's printing, which calls Python from C."""
    script = """
import ctypes, signal, sys, time
from ackward.cli import main
callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))
main._dispatch = lambda name, arguments: callback() or time.sleep(10) or 0
sys.argv = ["ackward", "status"]
main.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "ackward: interrupted.\n")


def _wait_until_attached(pid: int) -> None:
    assert eventually(lambda: _has_attached(pid), within=20)


def _has_attached(pid: int) -> bool:
    """Whether the recorder is at work: the watch holds its BPF links open."""
    held = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held += str(descriptor.readlink()).replace("-", "_").endswith("bpf_link")
        except OSError:
            continue  # closed between the listing and the look
    return held >= 2


def test_exit_code_counts_a_finding_as_5(hosts):
    with traffic(hosts, Shape(rounds=20)):
        assert ackward("watch", "--port", "7000", "--for", "1500ms", "--exit-code").returncode == 5
    assert ackward("watch", "--port", "7000", "--for", "100ms", "--exit-code").returncode == 0


@pytest.mark.parametrize(
    "command", [["watch"], ["lab", "run", "healthy"], ["fix", "quickack", "--port", "7000"]]
)
def test_without_root_the_exact_sudo_line_is_printed(command):
    done = subprocess.run([*NOBODY, ACKWARD, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"sudo {ACKWARD} {' '.join(command)}" in done.stderr
    assert "Traceback" not in done.stderr
    as_json = subprocess.run(
        [*NOBODY, ACKWARD, *command, "--json"], capture_output=True, text=True, check=False
    )
    assert json.loads(as_json.stdout)["exit_code"] == 3


def test_a_full_disk_is_no_traceback(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ACKWARD, "doctor", "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_that_does_not_fit_leaves_what_was_there(tmp_path, hosts):
    page = tmp_path / "report.html"
    page.write_text("old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    argv = [ACKWARD, "watch", "--netns", hosts.client.name, "--for", "100ms", "--report", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert page.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_a_closed_pipe_is_no_traceback():
    done = subprocess.run(
        f"{ACKWARD} doctor | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["watch", "--for", "soon"], 2, "no duration"),
        (["watch", "--for", "0s"], 2, "sees nothing"),
        (["watch", "--port", "70000"], 2, "no TCP port"),
        (["watch", "--netns", "no-such-ns"], 2, "no network namespace"),
        (["watch", "--pid", "4194304"], 2, "no process"),
        (["watch", "--cgroup", "/no/such"], 2, "no cgroup"),
        (["watch", "--cgroup", "/tmp"], 2, "not in the cgroup v2 hierarchy"),
        (["watch", "--frobnicate"], 2, "No such option"),
        (["lab", "run", "no-such-scenario"], 2, "no scenario"),
        (["lab", "run", "standoff", "--set", "family=5"], 2, "say 4 or 6"),
        (["lab", "run", "standoff", "--set", "colour=red"], 2, "means nothing"),
        (["fix", "quickack", "--port", "0"], 2, "no TCP port"),
        (["fix", "quickack", "--to", "10.0.0.1/8"], 2, "write 10.0.0.0/8"),
        (["fix", "quickack", "--to", "10.0.0.0/8", "--port", "1"], 2, "exclude each other"),
        (["undo", "no-such-receipt"], 2, "no-such-receipt"),
        (["dance"], 2, "no command"),
    ],
)
def test_bad_input_is_one_line_with_the_next_step(arguments, code, words):
    done = ackward(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    as_json = ackward(*arguments, "--json") if arguments[0] != "dance" else ackward("dance", "--json")
    assert json.loads(as_json.stdout)["exit_code"] == code


def test_a_program_that_the_kernel_refuses_is_named(hosts: TwoHosts):
    """Without CAP_BPF root is not enough: what is missing is said, nothing is attached."""
    argv = [
        "setpriv",
        "--bounding-set",
        "-bpf,-sys_admin,-perfmon",
        "--inh-caps",
        "-bpf,-sys_admin,-perfmon",
        ACKWARD,
    ]
    done = subprocess.run([*argv, "watch", "--for", "100ms"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "could not be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_and_load_are_the_two_halves(hosts):
    """On two real hosts each half is started by hand."""
    host: Namespace = hosts.server
    with program(host, [ACKWARD, "lab", "serve"]) as server:
        assert "answering" in server.stderr.readline()
        argv = [
            "nsenter",
            f"--net={hosts.client.path}",
            ACKWARD,
            "lab",
            "load",
            hosts.server_address(4),
            "--set",
            "rounds=5",
            "--json",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    measured = json.loads(done.stdout)
    assert measured["rounds"] == 5
    assert measured["slow"] >= 3


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        ("mount -t tmpfs none /sys/kernel/btf", "no BTF"),
        ("umount {cgroup2}", "cgroup v2 is not mounted"),
    ],
)
def test_what_the_kernel_lacks_is_named_and_nothing_changes(hide, words):
    """In a mount namespace of its own the machine seems to lack it."""
    script = f"{hide.format(cgroup2=cgroup2_mount())} && exec {ACKWARD} watch --for 100ms"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert words in done.stderr
    assert "Next:" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
