"""Install, uninstall and status: the binary before the entry, all of it or nothing, and the node as it was afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster.node_agent import ANNOTATED, LIST, Node, give_network, has_quickack, in_process
from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.quickack_hosts import routing
from tests.polling import eventually

from ackward.kernel.namespaces import temporary
from ackward.model.node import Placement
from ackward.node.conflist import TYPE, entry


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_uninstall_leaves_the_node_as_it_was(node: Node) -> None:
    node.bin.mkdir()
    (node.bin / "ptp").write_bytes(b"somebody else's")
    (node.net_d / "20-other.conflist").write_text(LIST)
    before = tree(node.root)
    assert node.ackward("install").returncode == 0
    assert node.has_entry
    installed = tree(node.root)
    again = node.ackward("install", "--json")
    assert json.loads(again.stdout)["done"] == [
        f"{node.bin / TYPE} was there",
        f"the entry was in {node.list}",
    ]
    assert tree(node.root) == installed
    with temporary("pod") as pod:
        give_network(pod)
        routes = routing(pod)
        with node.agent() as agent:
            assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
            assert has_quickack(pod)
            refused = node.ackward("uninstall")
            assert (refused.returncode, "it would put the entry back" in refused.stderr) == (2, True)
            assert "kubectl apply -k deploy/uninstall" in refused.stderr
            assert agent.end() == 0
            agent.log.unlink()
        assert has_quickack(pod)
        done = node.ackward("uninstall")
        assert done.returncode == 0, done.stderr
        assert f"default/{pod.name}: undone: set quickack" in done.stdout
        assert routing(pod) == routes
    assert tree(node.root) == before
    assert not node.run.exists()
    assert node.ackward("uninstall").stdout.strip() == "nothing of ackward was on this node."


def test_in_a_directory_of_others_only_ours_goes(node: Node) -> None:
    node.run.mkdir(mode=0o755)
    node.run.chmod(0o755)
    (node.run / "receipts").mkdir()
    (node.run / "receipts/quickack.json").write_text("another remedy's")
    before = tree(node.run)
    assert node.ackward("install").returncode == 0
    with node.agent() as agent:
        agent.end(signal.SIGKILL)
    (node.run / "missed").mkdir(mode=0o700)
    (node.run / "missed/c.eth0").touch()
    done = node.ackward("uninstall")
    assert (done.returncode, f"{node.run / 'agent.sock'} removed" in done.stdout) == (0, True)
    assert tree(node.run) == before
    assert [path.name for path in node.run.iterdir()] == ["receipts"]
    assert node.run.stat().st_mode & 0o7777 == 0o755
    assert node.ackward("uninstall").stdout.strip() == "nothing of ackward was on this node."


@pytest.mark.parametrize("command", ["install", "agent"])
@pytest.mark.parametrize("name", ['run"dir', "run\\dir", "caf\u00e9", "x" * 100])
def test_a_directory_whose_socket_the_stub_could_not_find_is_refused(
    node: Node, name: str, command: str
) -> None:
    node.run = node.root / name
    done = node.ackward(command)
    assert (done.returncode, "no path for the agent's socket" in done.stderr) == (2, True)
    assert (node.list.read_text(), node.bin.exists(), node.run.exists()) == (LIST, False, False)


@pytest.mark.parametrize("command", ["install", "agent"])
def test_a_directory_where_others_may_write_is_refused(node: Node, command: str) -> None:
    node.run.mkdir()
    node.run.chmod(0o1777)
    done = node.ackward(command)
    assert (done.returncode, "others may write" in done.stderr) == (2, True)
    assert (node.list.read_text(), node.bin.exists()) == (LIST, False)


def test_uninstall_reaches_a_pod_whose_record_cannot_be_read(node: Node) -> None:
    with temporary("pod") as pod:
        give_network(pod)
        routes = routing(pod)
        with node.agent() as agent:
            assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
            assert agent.end() == 0
        (record,) = node.run.glob("attachments/*/attachment")
        record.write_text("{")
        done = node.ackward("uninstall")
        assert (done.returncode, f"{pod.name}.eth0: undone" in done.stdout) == (0, True)
        assert routing(pod) == routes


def test_uninstall_finds_the_entry_in_every_list(node: Node) -> None:
    assert node.ackward("install").returncode == 0
    late = node.net_d / "05-late.conflist"
    late.write_text(node.list.read_text())
    assert node.ackward("uninstall").returncode == 0
    assert node.list.read_text() == LIST
    assert late.read_text() == LIST


def test_crio_may_start_the_binary_once_more(node: Node) -> None:
    assert node.ackward("install").returncode == 0
    assert node.ackward("uninstall", "--keep-binary").returncode == 0
    assert node.list.read_text() == LIST
    assert (node.bin / TYPE).exists()


def test_status_tells_what_is_so(node: Node) -> None:
    found = node.status()
    assert not found.ready
    assert (found.binary.present, found.entry.state) == (False, Placement.ABSENT)
    node.ackward("install")
    found = node.status()
    assert (found.binary.path, found.binary.present, found.binary.current) == (
        str(node.bin / TYPE),
        True,
        True,
    )
    assert (found.entry.state, found.agent.answering, found.ready) == (Placement.IN_PLACE, False, False)
    assert (found.agent.form, list(found.reasons)) == (None, ["agent"])
    assert "Next: " in node.ackward("status").stdout
    binary = (node.bin / TYPE).rename(node.root / "aside")
    assert "no pod can start" in node.status().reasons["binary"].lower()
    binary.rename(node.bin / TYPE)
    (node.bin / TYPE).write_bytes(b"an older one: ackcni/0")
    assert not node.status().binary.current
    with temporary("pod") as pod, node.agent():
        give_network(pod)
        assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
        assert eventually(lambda: node.status().marker.present)
        printed = json.loads(node.ackward("status", "--json").stdout)
        assert printed == json.loads(node.status().model_dump_json(by_alias=True))
        assert (printed["schema"], printed["ready"]) == ("ackward/node-status/1", True)
        assert (printed["agent"]["form"], printed["reasons"]) == ("plugin", {})
        assert printed["binary"]["current"], "the agent brings its own"
        on_record = printed["pods"][0]
        assert (on_record["pod"], on_record["alive"], on_record["lacking"]) == (
            f"default/{pod.name}",
            True,
            [],
        )
        subprocess.run(["ip", "-n", pod.name, "route", "replace", "default", "via", "198.18.7.1"], check=True)
        assert "IPv4" in node.status().pods[0].lacking[0]
        assert "in place" in node.ackward("status").stdout


def test_somebody_elses_binary_is_not_replaced(node: Node) -> None:
    node.bin.mkdir()
    (node.bin / TYPE).write_bytes(b"#!/bin/sh\nexit 0\n")
    done = node.ackward("install")
    assert (done.returncode, "somebody else's" in done.stderr) == (2, True)
    assert (node.bin / TYPE).read_bytes() == b"#!/bin/sh\nexit 0\n"
    assert node.list.read_text() == LIST
    assert node.ackward("uninstall").returncode == 0
    assert (node.bin / TYPE).exists()


def test_somebody_elses_entry_stays_and_so_does_the_binary_that_it_may_need(node: Node) -> None:
    assert node.ackward("install").returncode == 0
    foreign = LIST.replace('{"type": "ptp", "n": 1.10}', f'{{"type": "ptp"}}, {{"type": "{TYPE}"}}')
    node.list.write_text(foreign)
    assert node.ackward("install").returncode == 4
    done = node.ackward("uninstall", "--json")
    assert done.returncode == 4
    assert "binary stays" in json.loads(done.stdout)["consequence"]
    assert node.list.read_text() == foreign
    assert (node.bin / TYPE).exists()


@pytest.mark.parametrize(
    "words",
    [
        ("install", "--cni-conf-dir", "relative"),
        ("install", "--failure-policy", "ajar"),
        ("agent", "--listen", "9791"),
        ("agent", "--listen", "127.0.0.1:99999"),
        ("agent", "--kubeconfig", "/etc/passwd"),
        ("agent", "--service-account", "/etc"),
        ("agent", "--no-cni"),
        ("agent", "--no-cni", "--node-name", "n", "--kubeconfig", "/nowhere"),
        ("agent", "--no-cni", "--node-name", "n", "--kubeconfig", "/dev/null"),
        ("agent", "--no-cni", "--node-name", "n", "--service-account", "/nowhere"),
    ],
)
def test_bad_usage_is_one_line(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    done = in_process("node", *words)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Next:" in done.stderr


@contextmanager
def mount_namespace() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Mounts of our own; gives what runs a command line of a shell among them."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep infinity"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "ready\n"

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "--mount", f"--target={holder.pid}", "sh", "-c", script, "sh", *arguments]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60)

    try:
        yield run
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("trouble", ["read-only", "full"])
def test_where_nothing_can_be_written_nothing_is_half_written(node: Node, trouble: str) -> None:
    with mount_namespace() as run:
        mounted = run(
            'mount -t tmpfs -o size=16k tmpfs "$1" && printf %s "$2" > "$1/10-podnet.conflist"'
            + (' && mount -o remount,ro "$1"' if trouble == "read-only" else ""),
            str(node.net_d),
            LIST,
        )
        assert mounted.returncode == 0, mounted.stderr
        if trouble == "full":
            run('dd if=/dev/zero of="$1/fill" bs=512 2>&1', str(node.net_d))
        listing = run('ls -A "$1"', str(node.net_d)).stdout
        done = run('"$@"', ACKWARD, "node", "install", *node.places)
        assert done.returncode == 4, (done.stdout, done.stderr)
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert run('cat "$1/10-podnet.conflist"', str(node.net_d)).stdout == LIST
        assert run('ls -A "$1"', str(node.net_d)).stdout == listing


def test_after_a_reboot_the_marker_returns() -> None:
    """The places of a real node: /run is empty after a boot, /etc/cni and /opt/cni are not."""
    with mount_namespace() as run:
        begin = "for d in /etc/cni /opt/cni /run; do mkdir -p $d; mount -t tmpfs tmpfs $d || exit 1; done; mkdir -p /etc/cni/net.d"
        made = run(f'{begin}; printf %s "$1" > /etc/cni/net.d/10-podnet.conflist', LIST)
        assert made.returncode == 0, made.stderr
        wait = "i=0; until [ -e /var/run/quickack-enabled ]; do i=$((i+1)); [ $i -lt 500 ] || exit 1; sleep 0.02; done"
        # Killed, as by a power cut; the shell waits until the marker's watchman has seen it too.
        boot = (
            f"{ACKWARD} node agent --listen 127.0.0.1:0 2>/run/log & {wait}; cp /run/log /etc/cni/log; kill -9 $!; "
            "while [ -e /var/run/quickack-enabled ]; do sleep 0.02; done; umount -l /run; mount -t tmpfs tmpfs /run"
        )
        assert run(boot).returncode == 0
        assert run("ls -A /run").stdout == ""
        assert TYPE in run("cat /etc/cni/net.d/10-podnet.conflist").stdout
        assert run(f"[ ! -e /var/run/quickack-enabled ] && {boot}").returncode == 0
        assert run("grep -c 'entry put in' /etc/cni/log").stdout.strip() == "0", "it was there still"


def test_our_entry_names_the_agents_socket(node: Node) -> None:
    assert node.ackward("install", "--failure-policy", "closed").returncode == 0
    plugins = json.loads(node.list.read_text())["plugins"]
    assert plugins[-1] == entry(str(node.run / "agent.sock"), "closed")


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_the_policy_that_is_there_stays_unless_another_is_told(node: Node, policy: str) -> None:
    other = {"open": "closed", "closed": "open"}[policy]
    assert node.ackward("install", "--failure-policy", policy).returncode == 0
    installed = node.list.read_text()
    assert f"the entry was in {node.list}" in node.ackward("install").stdout
    with node.agent():
        assert node.list.read_text() == installed
    assert node.list.read_text() == installed
    changed = node.ackward("install", "--failure-policy", other)
    assert f"failurePolicy {policy} -> {other}" in changed.stdout
    assert json.loads(node.list.read_text())["plugins"][-1]["failurePolicy"] == other


def test_the_stub_speaks_for_itself(node: Node) -> None:
    """Without agent and Python: the version is asked before any pod is made."""
    assert node.ackward("install").returncode == 0
    done = subprocess.run(
        [str(node.bin / TYPE)],
        env={"CNI_COMMAND": "VERSION"},
        input=b'{"cniVersion": "1.0.0"}',
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
    assert sys.executable.encode() not in (node.bin / TYPE).read_bytes()
