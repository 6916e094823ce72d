"""`ackward fix quickack --netns self` with CAP_NET_ADMIN alone: what an init container of a pod may do."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, ip

from ackward.kernel.namespaces import Namespace, call_inside, command_inside, current, resolve
from ackward.lab.topology import DEVICE

#: Root without any capability but these; it gets no other by exec.
SETPRIV = "setpriv --no-new-privs --bounding-set={0} --inh-caps={0}"
NET_ADMIN, NONE = "-all,+net_admin", "-all"
#: A /run of its own, as a container has: with a writable file system on it, with one that is full, and read-only.
RUN = {"writable": "mode=755", "full": "size=4k,nr_inodes=2", "read-only": "ro"}


def inside(host: Namespace, capabilities: str, run: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run ``ackward`` commands one after another inside ``host``, with these capabilities and this /run."""
    alone = SETPRIV.format(capabilities)
    script = f"mount -t tmpfs -o {RUN[run]} tmpfs /run"
    script += "".join(f" && {alone} {ACKWARD} {command}" for command in commands)
    argv = ["unshare", "--mount", "sh", "-c", script]
    return subprocess.run(command_inside(host, argv), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def pod(hosts) -> Namespace:
    """The server's host, to which all leads over a default route, as to a pod of Azure's or Calico's."""
    gateway, gateway6 = hosts.client_address(4), hosts.client_address(6)
    ip(hosts.server, "route", "add", "default", "via", gateway, "dev", DEVICE, "onlink")
    ip(hosts.server, "-6", "route", "add", "default", "via", gateway6, "dev", DEVICE)
    ip(hosts.server, "route", "delete", "198.18.0.0/24", "dev", DEVICE)
    return hosts.server


def defaults(pod: Namespace) -> list[str]:
    return [ip(pod, family, "route", "show", "default") for family in ("-4", "-6")]


def test_it_is_enough_to_fix_to_read_back_and_to_undo(pod):
    before = defaults(pod)
    done = inside(pod, NET_ADMIN, "writable", "fix quickack --netns self --json", "status")
    assert done.returncode == 0, done.stderr
    assert all("quickack 1" in routes for routes in defaults(pod))
    assert done.stdout.count("has quickack 1") == 2
    receipt, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert receipt["receipt"]["namespace"]["name"] == "self"
    # That /run is gone, as with an init container that had no volume: the change stays, applying it again is nothing.
    again = inside(pod, NET_ADMIN, "writable", "fix quickack --netns self")
    assert (again.returncode, again.stdout.strip()) == (0, "Nothing to do."), again.stderr
    assert defaults(pod) != before


def test_it_ends_the_stall_of_a_connection_that_is_open(hosts, pod):
    with Conversation(hosts.client, pod, hosts.server_address(4), 7300) as conversation:
        assert conversation.median() > SLOW_MS
        done = inside(pod, NET_ADMIN, "writable", "fix quickack --netns self")
        assert done.returncode == 0, done.stderr
        assert conversation.median() < SLOW_MS


@pytest.mark.parametrize(
    ("capabilities", "run", "words"),
    [
        (NONE, "writable", "changing routes and sockets needs CAP_NET_ADMIN"),
        (NET_ADMIN, "read-only", "no receipt can be written to /run/ackward (Read-only file system)"),
        (NET_ADMIN, "full", "no receipt can be written to /run/ackward (No space left on device)"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_changed(pod, capabilities, run, words):
    before = defaults(pod)
    done = inside(pod, capabilities, run, "fix quickack --netns self")
    assert (done.returncode, done.stdout) == (3, "")
    assert words in done.stderr
    assert defaults(pod) == before


def test_sockets_need_more_and_that_is_said(pod):
    """Scopes of single sockets are BPF's: without CAP_BPF and a BPF file system the routes are the way."""
    before = defaults(pod)
    done = inside(pod, NET_ADMIN, "writable", "fix nodelay --netns self --port 7000")
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "Next: " in done.stderr
    assert defaults(pod) == before


def test_a_thread_in_another_namespace_is_there_and_not_where_its_process_is(pod: Namespace) -> None:
    def seen() -> tuple[int, str, int]:
        here = resolve("self")
        assert here.is_current
        return here.inode, here.name, here.path.stat().st_ino

    process = current()
    assert call_inside(pod, seen) == (pod.inode, pod.name, pod.inode)
    assert (current(), str(process.path)) == (process, "/proc/self/ns/net")
    assert process.inode != pod.inode
