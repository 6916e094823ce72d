"""What nodelay refuses: what is missing, what follows, what else would do; nothing changed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ackward import remedies
from ackward.cli import main as cli
from ackward.errors import Unavailable, UnknownName
from ackward.kernel.namespaces import Namespace
from ackward.model.changes import SocketOption
from ackward.model.scopes import SocketScope
from ackward.remedies.steering import probing

NODELAY = remedies.load("nodelay")
ACKWARD = [sys.executable, "-c", "from ackward.cli.main import main; main()"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name --port, --to, --cgroup or --pid"),
        (["--port", "7010-7000"], "turned round. Nothing was changed. Next: write 7000-7010"),
        (["--port", "0"], "is no TCP port"),
        (["--port", "70000"], "is no TCP port"),
        (["--port", "http"], "write 7000, or 7000-7010"),
        (["--to", "10.0.0.1/8"], "write 10.0.0.0/8"),
        (["--pid", "999999999"], "there is no process 999999999. Nothing was changed"),
        (["--cgroup", "/sys/fs/cgroup/cpu"], "is not in the cgroup v2 hierarchy. Nothing was changed"),
        (["--cgroup", "no/such"], "there is no cgroup no/such"),
    ],
)
def test_bad_requests(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fix", "nodelay", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_process_that_ended(host: Namespace) -> None:
    with pytest.raises(UnknownName, match="has ended"):
        NODELAY.plan(host, SocketScope(pid=os.getpid(), start_time=1))


def test_a_kernel_that_refuses_the_option() -> None:
    with pytest.raises(Unavailable, match="does not let a hook set TCP_DELACK_MAX"):
        probing.require(SocketOption(name="TCP_DELACK_MAX", value=1))  # below two jiffies: never allowed


def test_without_ptrace() -> None:
    drop = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *ACKWARD]
    arguments = ["fix", "nodelay", "--netns", "self", "--pid", str(os.getpid())]
    done = subprocess.run([*drop, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "may not be looked into (ptrace" in done.stderr
    assert "--cgroup" in done.stderr


def test_without_the_bpf_file_system() -> None:
    script = 'umount /sys/fs/bpf && exec "$@" fix nodelay --port 7300'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *ACKWARD]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "Next: mount -t bpf bpf /sys/fs/bpf" in done.stderr
