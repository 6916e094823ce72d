"""Memory and processor time of the node agent: none and 200 pods, as the CNI plugin's agent and as the daemon form.

Pods are real network namespaces with a default route of each family, made known to the real agent: through the stub, as a
runtime does it; in the daemon form by an API server that speaks the pods' wire format and a container runtime of whose
sandboxes there are none (what is measured is the following of 200 pods). RSS is VmRSS of the agent, with the shell that
watches its marker beside it; its highest (VmHWM) covers the repair of all pods after a start. Needs root.

    python -m benchmarks.node_memory [--pods 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.api_server import api_server, kubeconfig
from tests.cluster.node_agent import ANNOTATED, Node, Running, has_quickack
from tests.polling import eventually

from ackward.kernel.namespaces import Namespace, temporary
from ackward.node.repairs import LOOK_AT_PODS

#: Makes a pod as large as they are in clusters.
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
#: Seconds at rest: two looks at all pods.
REST = 2 * LOOK_AT_PODS
#: Promised (MB of 10^6 bytes).
LIMIT = 60
NETWORK = """\
link add eth0 type veth peer name wire
link set eth0 up
link set wire up
addr add 198.18.7.2/24 dev eth0
addr add fdac:7::2/64 dev eth0 nodad
route add default via 198.18.7.1
route add default via fdac:7::1
"""


def memory(agent: Running) -> dict[str, float]:
    """MB now and at most, of the agent; and of its children together."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    of_children = [
        int(line.split()[1])
        for child in children
        for line in Path(f"/proc/{child}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return {
        "now": int(fields["VmRSS"].split()[0]) * 1024 / 1e6,
        "most": int(fields["VmHWM"].split()[0]) * 1024 / 1e6,
        "children": sum(of_children) * 1024 / 1e6,
    }


def processor(agent: Running, seconds: float) -> float:
    """Share of a processor that the agent takes at rest."""
    before = agent.metric("process_cpu_seconds_total")
    time.sleep(seconds)
    return (agent.metric("process_cpu_seconds_total") - before) / seconds


def make_pods(count: int, stack: ExitStack) -> list[Namespace]:
    pods = []
    for _ in range(count):
        pod = stack.enter_context(temporary("pod"))
        subprocess.run(["ip", "-n", pod.name, "-batch", "-"], input=NETWORK, text=True, check=True)
        pods.append(pod)
    return pods


def as_plugin(count: int) -> dict[str, object]:
    """The agent with the CNI plugin: none, all, and a start with all of them to be looked at and repaired."""
    with ExitStack() as stack:
        node = Node(Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))))
        found: dict[str, object] = {}
        with node.agent() as agent:
            found["none"] = memory(agent)
            pods = make_pods(count, stack)
            took = []
            for pod in pods:
                begun = time.monotonic()
                assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
                took.append(time.monotonic() - begun)
            found["all"] = memory(agent)
            found["add_ms"] = statistics.median(took) * 1e3
            found["rest"] = processor(agent, REST)
        for pod in pods:
            subprocess.run(
                ["ip", "-n", pod.name, "route", "replace", "default", "via", "198.18.7.1"], check=True
            )
        begun = time.monotonic()
        with node.agent() as agent:
            lost = 'ackward_node_repaired_total{way="lost"}'
            assert eventually(lambda: agent.metric(lost) == count, within=60)
            found["repaired_s"] = time.monotonic() - begun
            found["repaired"] = memory(agent)
        assert all(map(has_quickack, pods))
        return found


def as_daemon(count: int) -> dict[str, object]:
    """The agent that follows the API server."""
    with ExitStack() as stack:
        node = Node(Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))))
        api = stack.enter_context(api_server())
        config = node.root / "kubeconfig"
        config.write_text(kubeconfig(api))
        options = ("--no-cni", "--node-name", "node-1", "--kubeconfig", str(config))
        found: dict[str, object] = {}
        for name, pods in (("none", 0), ("all", count)):
            for number in range(pods):
                api.put(f"pod-{number}", {**ANNOTATED, LAST_APPLIED: "x" * 8000})
            with node.agent(*options) as agent:
                found[name] = memory(agent)
        return found


def show(name: str, found: dict[str, object], count: int) -> None:
    print(f"\n{name}")
    for key, words in (
        ("none", "no pods"),
        ("all", f"{count} pods"),
        ("repaired", f"{count} pods, after a start that repaired all"),
    ):
        if isinstance(mb := found.get(key), dict):
            print(
                f"  {words:<45} {mb['now']:6.1f} MB   at most {mb['most']:6.1f}   marker's shell {mb['children']:4.1f}"
            )
    if "add_ms" in found:
        print(
            f"  ADD of one pod, process and all: median {found['add_ms']:.1f} ms; at rest {found['rest']:.2%} of a processor"
        )
        print(f"  all repaired {found['repaired_s']:.1f} s after the agent was started")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {"plugin": as_plugin(options.pods), "daemon": as_daemon(options.pods)}
    for name, figures in found.items():
        show(name, figures, options.pods)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    worst = max(
        state["most"] for figures in found.values() for state in figures.values() if isinstance(state, dict)
    )
    print(f"\nhighest {worst:.1f} MB, promised {LIMIT}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
