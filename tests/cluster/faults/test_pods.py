"""Bad input and bad days of pods: the right error, and nothing half-written."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import ASKS, EVERY, Agent, quick, unicast, wired_pod
from tests.kernel.quickack_hosts import ip, routing
from tests.polling import eventually
from tests.unit.stub_runs import RESULT, Run, configuration, run, stub

from ackward import remedies
from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace
from ackward.model.plan import State
from ackward.node.annotations import wanted
from ackward.node.pods import Attachment, Pods
from ackward.node.requests import Server
from ackward.node.wire import Request
from ackward.remedies.receipts import Receipts


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of a few pages."""
    place.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k,mode=700", "ackward-tests", str(place)], check=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_namespace_that_is_gone_or_none(agent: Agent, tmp_path: Path) -> None:
    """The specification's error 4, as far as it can be told for certain: the runtime has none there either."""
    plain = tmp_path / "file"
    plain.touch()
    with agent.running():
        for netns in ("/run/netns/ackward-never-was", str(plain), "relative", "12"):
            for command in ("ADD", "CHECK"):
                error = run(command, configuration(agent.socket, ASKS), netns=netns).error
                assert (error["code"], "CNI_NETNS" in error["msg"]) == (4, True), netns
            assert run("DEL", configuration(agent.socket, ASKS), netns=netns).code == 0
        assert agent.served[-1].command == "DEL"
        assert run("ADD", configuration(agent.socket, ASKS), netns="").error["code"] == 4
    assert agent.pods.all() == []


def test_a_namespace_that_the_agent_does_not_see_keeps_no_pod_from_starting(
    agent: Agent, here: Namespace
) -> None:
    """As in a container without the runtime's mounts: the stub sees it, the agent does not."""
    with private_mount(here) as (unseen, shown), agent.running():

        def ask(command: str, annotations: dict[str, str], policy: str) -> Run:
            stdin = configuration(agent.socket, annotations, failurePolicy=policy)
            return run(command, stdin, netns=unseen, argv=[*shown, *stub()])

        for policy in ("open", "closed"):
            done = ask("ADD", {}, policy)
            assert (done.code, json.loads(done.out)) == (0, RESULT)
            assert (agent.served[-1].problems, ask("CHECK", {}, policy).code) == ((), 0)
        done = ask("ADD", ASKS, "open")
        assert (done.code, json.loads(done.out)) == (0, RESULT)
        assert "no network namespace" in agent.served[-1].problems[0]
        assert ask("ADD", ASKS, "closed").error["code"] == 101
        assert ask("CHECK", ASKS, "open").error["code"] == 100
        assert ask("DEL", ASKS, "open").code == 0
    assert agent.pods.all() == []


@contextmanager
def private_mount(namespace: Namespace) -> Iterator[tuple[str, list[str]]]:
    """A path that leads to the namespace only for what runs behind the command: in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="ackward-tests-") as directory:
        place = Path(directory) / "netns"
        script = 'mount -t tmpfs none "$1" && touch "$2" && mount --bind "$3" "$2" && shift 3 && exec "$@"'
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        yield str(place), [*inside, directory, str(place), str(namespace.path)]


def test_the_node_itself_is_no_pod(agent: Agent) -> None:
    with agent.running():
        done = run("ADD", configuration(agent.socket, ASKS), netns="/proc/self/ns/net")
        assert (done.code, json.loads(done.out)) == (0, RESULT)
        assert "node's own" in agent.served[-1].problems[0]
        closed = configuration(agent.socket, ASKS, failurePolicy="closed")
        assert run("ADD", closed, netns=f"/proc/{os.getpid()}/ns/net").error["code"] == 101


def test_an_agent_that_comes_back_makes_up_for_what_it_missed(agent: Agent, here: Namespace) -> None:
    stdin = configuration(agent.socket, ASKS)
    assert run("ADD", stdin, netns=str(here.path)).code == 0
    assert (quick(here), agent.missed.waiting()) == ([], 1)
    with agent.running():
        assert agent.missed.replay(agent.commands) == 1
        assert (len(quick(here)), agent.missed.waiting()) == (EVERY, 0)
        assert run("CHECK", stdin, netns=str(here.path)).code == 0
        assert run("DEL", stdin, netns=str(here.path)).code == 0
    assert quick(here) == []


def test_after_a_reboot_the_request_finds_a_place(tmp_path: Path) -> None:
    """/run is empty then, and pods may start before the agent. In a mount namespace, whose /run is another."""
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /run && "$0" && echo && find /run/ackward -mindepth 1',
    ]
    done = run("ADD", configuration(Path("/run/ackward/node/agent.sock"), ASKS), argv=[*argv, *stub()])
    assert done.code == 0
    printed, _, found = done.out.decode().partition("\n/run")
    assert json.loads(printed) == RESULT
    assert f"/run{found}".split() == [
        f"/run/ackward/node{part}" for part in ("", "/missed", "/missed/0123abcd.eth0")
    ]


def test_what_lies_among_the_missed_and_is_no_request(agent: Agent) -> None:
    agent.missed.directory.mkdir(parents=True)
    whole = Request({"CNI_COMMAND": "ADD"}, b"{}").pack()
    for number, data in enumerate((b"", b"junk", whole[:-1], whole + b"x")):
        (agent.missed.directory / f"{number}.eth0").write_bytes(data)
    stale = agent.missed.directory / ".left.eth0"
    stale.touch()
    os.utime(stale, (0, 0))
    (agent.missed.directory / ".now.eth0").touch()
    (agent.missed.directory / "odd.eth0").write_bytes(
        whole
    )  # a request that makes no sense is answered, with an error
    assert agent.missed.replay(agent.commands) == 1
    assert len(agent.troubles) == 4
    assert agent.served[-1].code == 4
    assert [path.name for path in agent.missed.directory.iterdir()] == [".now.eth0"]


def test_what_was_lost_is_given_back(agent: Agent, here: Namespace) -> None:
    attachment = Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=ASKS)
    before = routing(here)
    assert agent.pods.apply(attachment).problems == ()
    assert agent.pods.lacking(attachment) == ()
    assert agent.pods.apply(attachment).changed == ()
    ip(here, "route", "replace", "default", "via", "198.19.7.1")
    ip(here, "-6", "route", "delete", "default")
    assert len(agent.pods.lacking(attachment)) == 2
    assert agent.pods.apply(attachment).problems == ()
    assert agent.pods.lacking(attachment) == ()
    assert len(quick(here)) == len([line for line in unicast(here) if "fe80" not in line]) == EVERY - 1
    ip(
        here, "-6", "route", "add", "default", "via", "fdac:7::1"
    )  # a route that comes later is one of every route
    assert [words[:9] for words in agent.pods.lacking(attachment)] == ["not done:"]
    assert agent.pods.apply(attachment).problems == ()
    assert (agent.pods.lacking(attachment), len(quick(here))) == ((), EVERY)
    agent.pods.forget("c", "eth0")
    assert routing(here) == before
    assert agent.pods.all() == []


@pytest.mark.parametrize(
    "event",
    [
        ["addr del 198.19.7.2/24 dev eth0", "-6 addr del fdac:7::2/64 dev eth0"],
        ["link set eth0 down", "link set eth0 up"],
    ],
    ids=["addresses go", "link down and up"],
)
def test_connected_routes_stay_the_kernels_own(event: list[str], agent: Agent) -> None:
    left = []
    for asks in (ASKS, {}):
        with wired_pod() as here:
            agent.pods.apply(
                Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=asks)
            )
            assert len(quick(here)) == (EVERY if asks else 0)
            for command in event:
                ip(here, *command.split())
            assert eventually(lambda here=here: any("fe80::/64 dev eth0" in line for line in unicast(here)))  # type: ignore[misc]
            left.append([line.replace(" quickack 1", "") for line in unicast(here)])
    assert left[0] == left[1]
    agent.pods.sweep()


def test_annotations_that_change(agent: Agent, here: Namespace) -> None:
    """As the daemon form sees them: what is not asked for any more goes."""
    attachment = Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=ASKS)
    agent.pods.apply(attachment)
    scoped = attachment.model_copy(update={"annotations": {"ackward.io/quickack": "10.0.0.0/8"}})
    agent.pods.apply(scoped)
    assert ["10.0.0.0/8" in line for line in quick(here)] == [True]
    assert [one.annotations for one in agent.pods.all()] == [scoped.annotations]
    agent.pods.apply(scoped, wanted({}))
    assert quick(here) == []


@pytest.mark.parametrize("policy", ["open", "closed"])
def test_a_full_disk(policy: str, tmp_path: Path, here: Namespace) -> None:
    with small_disk(tmp_path / "disk") as disk:
        agent = Agent(disk / "node")
        with agent.running():
            (agent.directory / "attachments").mkdir()
            fill(disk)
            before = routing(here)
            done = run("ADD", configuration(agent.socket, ASKS, failurePolicy=policy), netns=str(here.path))
            if policy == "closed":
                assert done.error["code"] == 101
                assert "No space left" in done.error["details"]
            else:
                assert (done.code, json.loads(done.out)) == (0, RESULT)
                assert "No space left" in agent.served[-1].problems[0]
            assert routing(here) == before
            (disk / "full").unlink()
            assert run("ADD", configuration(agent.socket, ASKS), netns=str(here.path)).code == 0
            assert len(quick(here)) == EVERY
            assert run("DEL", configuration(agent.socket), netns=str(here.path)).code == 0
        assert list((disk / "node/attachments").iterdir()) == []
        fill(disk)
        done = run(
            "ADD", configuration(agent.socket, ASKS), netns=str(here.path)
        )  # nobody there, and no room
        assert (done.code, json.loads(done.out)) == (0, RESULT)
        assert "could not be left" in done.err
        assert agent.missed.waiting() == 0
        assert not list((disk / "node").glob("missed/.*"))


def test_directories_that_may_only_be_read(agent: Agent, here: Namespace) -> None:
    with small_disk(agent.pods.directory) as attachments, small_disk(agent.missed.directory) as missed:
        for disk in (attachments, missed):
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = routing(here)
        with agent.running():
            done = run("ADD", configuration(agent.socket, ASKS), netns=str(here.path))
            assert (done.code, json.loads(done.out)) == (0, RESULT)
            assert "Read-only" in agent.served[-1].problems[0]
            assert run("DEL", configuration(agent.socket, ASKS), netns=str(here.path)).code == 0
        done = run("ADD", configuration(agent.socket, ASKS), netns=str(here.path))
        assert (done.code, json.loads(done.out)) == (0, RESULT)
        assert "could not be left" in done.err
        assert routing(here) == before


def test_a_place_that_may_only_be_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        agent = Agent(disk / "node")
        with pytest.raises(Unavailable, match="Read-only"):
            Server(agent.socket, agent.commands, agent.troubles.append).open()


@pytest.mark.parametrize("step", range(9))
def test_an_agent_killed_on_the_way_leaves_what_can_be_finished(
    step: int, agent: Agent, here: Namespace
) -> None:
    """As after kill -9: whatever was written is all that the next one knows."""
    attachment = Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=ASKS)
    before = routing(here)
    code = f"""
import os, sys
from pathlib import Path
from ackward.node.pods import Attachment, Pods
from ackward.remedies import transaction
real, seen = transaction.finish, []
def finish(steps):
    while True:
        if len(seen) == {step}:
            os.kill(os.getpid(), 9)
        seen.append(next(steps))
transaction.finish = finish
Pods(Path({str(agent.pods.directory)!r})).apply(Attachment.model_validate_json({attachment.model_dump_json()!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode in (-9, 1), done.stderr
    again = Pods(agent.pods.directory)
    (known,) = again.all()
    assert again.apply(known).problems == ()
    assert len(quick(here)) == EVERY
    assert state_of(agent.pods.directory / "c.eth0") is State.IN_FORCE
    assert again.forget("c", "eth0").problems == ()
    assert routing(here) == before


def state_of(directory: Path) -> State:
    """What the kernel says of the one receipt in it."""
    store = Receipts(directory)
    (receipt,) = store.load().receipts
    return remedies.load(receipt.remedy).status(receipt, store).state


def test_a_record_that_cannot_be_read_goes_with_what_it_spoke_of(agent: Agent, here: Namespace) -> None:
    attachment = Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=ASKS)
    agent.pods.apply(attachment)
    (agent.pods.directory / "c.eth0" / "attachment").write_text("{")
    assert agent.pods.all() == []
    assert [one.container_id for one in agent.pods.sweep()] == ["c"]
    assert quick(here) == []
    assert list(agent.pods.directory.iterdir()) == []


def test_a_receipt_that_cannot_be_read_is_told_and_the_rest_undone(agent: Agent, here: Namespace) -> None:
    asks = {"ackward.io/quickack": "yes", "ackward.io/initcwnd": "40"}
    attachment = Attachment(container_id="c", ifname="eth0", netns=str(here.path), annotations=asks)
    assert agent.pods.apply(attachment).problems == ()
    (lost,) = (agent.pods.directory / "c.eth0").glob("initcwnd-*.json")
    lost.write_text("{")
    outcome = agent.pods.forget("c", "eth0")
    assert outcome.problems == (f"{lost.name} could not be read: what it spoke of may be left",)
    assert (quick(here), agent.pods.all()) == ([], [])


def test_ten_pods_at_once(agent: Agent) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(agent.running())
        pods = [stack.enter_context(wired_pod(label=f"p{number}")) for number in range(10)]
        codes: list[int] = []

        def start(command: str) -> None:
            def one(here: Namespace) -> None:
                done = run(
                    command, configuration(agent.socket, ASKS), container=here.name, netns=str(here.path)
                )
                codes.append(done.code)

            threads = [threading.Thread(target=one, args=(here,)) for here in pods]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        start("ADD")
        assert [len(quick(here)) for here in pods] == [EVERY] * 10
        start("DEL")
        assert [quick(here) for here in pods] == [[]] * 10
        assert codes == [0] * 20
        assert (agent.troubles, agent.pods.all(), agent.missed.waiting()) == ([], [], 0)
