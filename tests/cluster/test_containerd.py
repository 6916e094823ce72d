"""The plugin and the agent under a real containerd: pods made over its Container Runtime Interface."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.cluster.containerd import Containerd, Sandboxed, conflist
from tests.cluster.node_agent import Running
from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, ip, wire
from tests.polling import eventually

from ackward.kernel import grpc, protobuf
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.node.conflist import TYPE

ANNOTATED = {"enable-quickack": "true"}
#: How long the agent may take, from its start, until running pods have what they ask for.
REPAIRED_WITHIN = 5.0


class Node:
    """A node: containerd, and the directories of an agent beside it."""

    def __init__(self, runtime: Containerd, run: Path) -> None:
        self.runtime = runtime
        self.run = run
        self.marker = run / "quickack-enabled"
        self.places = [
            *("--cni-conf-dir", str(runtime.net_d)),
            *("--cni-bin-dir", str(runtime.bin)),
            *("--run-dir", str(run)),
            *("--marker", str(self.marker)),
        ]

    @contextmanager
    def agent(self, *options: str) -> Iterator[Running]:
        """The agent as a service manager starts it; ready, and its entry taken up by containerd."""
        log = self.run.with_name(f"{self.run.name}.{time.monotonic_ns()}.log")
        command = [ACKWARD, "node", "agent", *self.places, "--listen", "127.0.0.1:0", *options]
        environment = {**os.environ, "CONTAINER_RUNTIME_ENDPOINT": str(self.runtime.socket)}
        with log.open("w") as stderr:
            process = subprocess.Popen(command, stderr=stderr, text=True, env=environment)
        running = Running(process, log)
        try:
            yield running
        finally:
            process.kill()
            process.wait()

    def ready(self, agent: Running) -> None:
        """Wait until new pods get quickack, which the marker promises."""
        assert eventually(lambda: self.marker.exists() and self.chained(), within=20), agent.log.read_text()
        agent.http = agent.events("agent started")[0]["listen"]

    def chained(self) -> bool:
        """Whether containerd has taken up a list with our entry (StatusResponse.info, verbose)."""
        info = protobuf.mapping(self.runtime.call("Status", {1: True}), 2)
        return TYPE in info.get("cniconfig", "")

    def uninstall(self) -> None:
        done = subprocess.run(
            [ACKWARD, "node", "uninstall", *self.places], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.runtime.until(lambda: not self.chained(), "containerd takes up the list without us")

    def attachments(self) -> list[str]:
        """The pods on record."""
        return sorted(path.name for path in (self.run / "attachments").glob("*"))

    def quick(self, pod: Sandboxed) -> bool:
        """Whether both default routes of the pod have quickack, and nothing else of its routes is changed."""
        routes = self.routes(pod)
        return "quickack 1" in routes and routes.replace(" quickack 1", "") == PLAIN

    def routes(self, pod: Sandboxed) -> str:
        """The routes of a pod, both families, without its own address."""
        place = self.runtime.namespace(pod)
        lines = []
        for family in ("-4", "-6"):
            command = command_inside(place, ["ip", family, "route", "show"])
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            lines += [line.partition(" src ")[0].strip() for line in done.stdout.splitlines()]
        return "\n".join(lines).replace("  ", " ")


#: What Debian's bridge gives a pod.
PLAIN = """\
default via 198.18.64.1 dev eth0
198.18.64.0/24 dev eth0 proto kernel scope link
fdac:64::/64 dev eth0 proto kernel metric 256 pref medium
fe80::/64 dev eth0 proto kernel metric 256 pref medium
default via fdac:64::1 dev eth0 metric 1024 pref medium"""


@pytest.fixture
def node(runtime: Containerd, tmp_path: Path) -> Iterator[Node]:
    """No agent yet. Afterwards nothing of pods or of the plugin may be left."""
    made = Node(runtime, tmp_path / "run")
    yield made
    for pod in runtime.pods():
        runtime.remove_pod(pod)
    assert runtime.netns_mounts() == []
    assert runtime.reserved() == []
    made.uninstall()
    assert made.attachments() == []


@pytest.fixture(params=["0.3.0", "1.0.0"])
def version(request, runtime: Containerd) -> Iterator[str]:
    """The oldest and the newest version of a list that containerd 1.6 reads; afterwards it is as it was."""
    before = conflist("podnet0")
    runtime.write_conflist(before | {"cniVersion": request.param})
    yield request.param
    runtime.write_conflist(before)


def test_annotated_pods_get_it_and_others_do_not(version, node):
    early = node.runtime.run_pod("early", annotations=ANNOTATED)  # before the plugin is there
    other = node.runtime.run_pod("early-other")
    assert node.routes(early) == PLAIN
    with node.agent() as agent:
        node.ready(agent)
        assert eventually(lambda: node.quick(early), within=REPAIRED_WITHIN)
        assert node.quick(node.runtime.run_pod("web", annotations=ANNOTATED))
        assert node.routes(node.runtime.run_pod("db", annotations={"enable-quickack": "no"})) == PLAIN
        assert node.routes(node.runtime.run_pod("cache")) == node.routes(other) == PLAIN
        before = agent.metric('ackward_node_requests_total{code="0",command="DEL"}')
        # A pod is stopped, stopped again, and removed: each is a DEL, the later ones with an empty CNI_NETNS, and at
        # 0.3.0 all without prevResult. Those made before the plugin get its DEL too.
        pods = node.runtime.pods()
        for pod in pods:
            node.runtime.call("StopPodSandbox", {1: pod})
            node.runtime.call("StopPodSandbox", {1: pod})
            node.runtime.call("RemovePodSandbox", {1: pod})
        deleted = agent.metric('ackward_node_requests_total{code="0",command="DEL"}') - before
        assert deleted >= 2 * len(pods) == 10
        assert agent.metric("ackward_node_problems_total") == 0
        assert node.attachments() == []
        assert json.loads((node.runtime.net_d / "10-podnet.conflist").read_text())["cniVersion"] == version


def test_fifty_pods_ten_at_a_time_and_nothing_leaks(node):
    before = processes(node.runtime)
    with node.agent() as agent, ThreadPoolExecutor(10) as ten:
        node.ready(agent)
        made = list(
            ten.map(
                lambda n: node.runtime.run_pod(f"p{n}", annotations=ANNOTATED if n % 2 else {}), range(50)
            )
        )
        assert [node.quick(pod) for pod in made] == [bool(n % 2) for n in range(50)]
        assert len(node.attachments()) == 25
        list(ten.map(lambda pod: node.runtime.remove_pod(pod.id), made))
        assert node.attachments() == []
        assert node.runtime.netns_mounts() == []
        assert node.runtime.reserved() == []
        assert agent.metric("ackward_node_problems_total") == 0
        assert eventually(lambda: processes(node.runtime) == before | {agent.process.pid})


def processes(runtime: Containerd) -> set[int]:
    """containerd, its shims, running plugins, the agent: whatever has our directory on its command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(runtime.root).encode() in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def test_an_agent_that_is_killed_keeps_no_pod_from_starting_and_repairs_when_it_is_back(node):
    with ThreadPoolExecutor(5) as five:
        with node.agent() as agent:
            node.ready(agent)
            asked = [
                five.submit(node.runtime.run_pod, f"k{number}", annotations=ANNOTATED) for number in range(15)
            ]
            asked[2].result()
            agent.end(signal.SIGKILL)  # in the middle of the others
        pods = [pod.result() for pod in asked]
        assert not all(map(node.quick, pods))
        # One goes while nobody is there to be told.
        gone = pods.pop()
        node.runtime.remove_pod(gone.id)
        started = time.monotonic()
        with node.agent() as agent:
            assert eventually(lambda: all(map(node.quick, pods)), within=20), agent.log.read_text()
            assert time.monotonic() - started < REPAIRED_WITHIN
            assert eventually(lambda: len(node.attachments()) == len(pods)), agent.log.read_text()


def test_closed_means_closed_until_the_agent_is_back(node):
    with node.agent("--failure-policy", "closed") as agent:
        node.ready(agent)
        agent.end(signal.SIGKILL)
    with pytest.raises(grpc.CallFailed, match=TYPE):
        node.runtime.run_pod("web", annotations=ANNOTATED)
    assert node.runtime.reserved() == []
    assert node.runtime.netns_mounts() == []
    with node.agent("--failure-policy", "closed") as agent:
        node.ready(agent)
        assert node.quick(node.runtime.run_pod("web", annotations=ANNOTATED))


@pytest.fixture
def client(runtime: Containerd) -> Iterator[Namespace]:
    """A host beyond the node, so that its connections to pods lead over their default routes."""
    with temporary("client") as made:
        wire(made, runtime.host, "beyond", 9)
        ip(made, "route", "add", "198.18.64.0/24", "via", "198.19.9.2")
        yield made
        ip(runtime.host, "link", "delete", "beyond")


def test_the_stall_is_gone_in_an_annotated_pod_and_there_in_another(node, client):
    with node.agent() as agent, ExitStack() as stack:
        node.ready(agent)
        pods = {name: node.runtime.run_pod(name, annotations=wish) for name, wish in WISHES.items()}

        def talk(pod: str, port: int, *, nagle: bool) -> Conversation:
            server = node.runtime.namespace(pods[pod])
            address = node.runtime.address(pods[pod])
            return stack.enter_context(Conversation(client, server, address, port, nagle=nagle))

        stalled = talk("plain", 7000, nagle=True)
        held, free = talk("quick", 7000, nagle=True), talk("quick", 7001, nagle=False)
        assert stalled.median() > SLOW_MS
        times: dict[Conversation, list[float]] = {held: [], free: []}
        for _ in range(30):  # taken in turns: timing on a busy machine shifts
            for conversation, found in times.items():
                found += conversation.rounds(10)
        ratio = statistics.median(times[held]) / statistics.median(times[free])
        assert ratio <= 1.5


WISHES = {"plain": {}, "quick": ANNOTATED}
