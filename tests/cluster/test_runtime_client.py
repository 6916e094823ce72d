"""What our client reads of a real containerd, against containerd's own client `ctr` and the kernel."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.containerd import PYTHON, Containerd

from ackward.errors import UnknownName
from ackward.kernel import cri


def ctr(runtime: Containerd, *arguments: str) -> str:
    command = ["ctr", "-a", str(runtime.socket), "-n", "k8s.io", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["runtime.v1", "runtime.v1alpha2"])
def version(request, monkeypatch) -> str:
    """containerd 1.6 serves both, with the same answers."""
    monkeypatch.setattr(cri, "_VERSIONS", (request.param,))
    return request.param


def test_it_is_what_containerd_itself_says(asked, version):
    wait = [PYTHON, "-c", "import signal; signal.pause()"]
    with ExitStack() as stack:
        made = asked.run_pod("web", namespace="shop", annotations={"enable-quickack": "true", "ü": "\n"})
        stack.callback(asked.remove_pod, made.id)
        names = {asked.run_container(made, name, wait): name for name in ("app", "sidecar")}
        pod = cri.pod("shop/web")

        # PID and container of each task, as a table with a heading.
        tasks = {line.split()[0]: int(line.split()[1]) for line in ctr(asked, "tasks", "ls").splitlines()[1:]}
        assert {one.id: one.pid for one in pod.containers} | {made.id: pod.pid} == tasks
        assert {one.id: one.name for one in pod.containers} == names
        spec = json.loads(ctr(asked, "containers", "info", made.id))["Spec"]
        network = next(one for one in spec["linux"]["namespaces"] if one["type"] == "network")
        assert str(pod.netns) == network["path"]
        assert pod.netns.stat().st_ino == Path(f"/proc/{pod.pid}/ns/net").stat().st_ino
        assert pod.sandbox.annotations == {"enable-quickack": "true", "ü": "\n"}
        assert (pod.sandbox.uid, pod.sandbox.attempt) == ("uid-web", 0)
        # Each container has a cgroup below the pod's.
        for one in pod.containers:
            assert one.cgroup == f"{pod.cgroup}/{one.id}"
            assert f"0::/{one.cgroup}" in Path(f"/proc/{one.pid}/cgroup").read_text()

        # A container that has ended is known by its name, and has no process.
        asked.call("StopContainer", {1: pod.containers[0].id})
        again = cri.pod("shop/web")
        assert {one.name: one.pid is None for one in again.containers} == {
            one.name: one.id == pod.containers[0].id for one in pod.containers
        }
        assert again.cgroup == pod.cgroup

    with cri.Runtime(asked.socket) as runtime, pytest.raises(UnknownName):
        runtime.inspect(pod.sandbox)


def test_a_pod_that_was_stopped_does_not_run(asked):
    made = asked.run_pod("web", namespace="shop")
    try:
        assert [sandbox.pod for sandbox in cri.running().sandboxes] == ["shop/web"]
        asked.call("StopPodSandbox", {1: made.id})
        assert cri.running().sandboxes == ()
    finally:
        asked.remove_pod(made.id)
