"""`ackward watch --pod`: real pods on a real containerd, and who in them makes whom wait."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
from tests.cluster.containerd import PYTHON, Containerd, Sandboxed
from tests.cluster.node_agent import in_process
from tests.kernel.lab_hosts import ackward, ackward_json

from ackward.kernel import cri
from ackward.kernel.sockets import listening_ports
from ackward.lab.peer import Shape

#: Lasts longer than any watch; its container ends with its pod.
STANDOFF = Shape(rounds=100_000)


def half(runtime: Containerd, pod: Sandboxed, container: str, kind: str, address: str, shape: Shape) -> None:
    """Run one half of a load in a container of a pod; a server is there when this returns."""
    command = [PYTHON, "-m", "ackward.lab.peer", kind, address, shape.to_json()]
    runtime.run_container(pod, container, command)
    if kind == "serve":
        place = runtime.namespace(pod)
        runtime.until(lambda: shape.port in listening_ports(place), f"{container} listens")


@pytest.fixture
def shop(asked: Containerd):
    """A pod with two clients, and one with two servers. One pair stands off, the other connects again and again."""
    with ExitStack() as stack:

        def pod(name: str, **options) -> Sandboxed:
            made = asked.run_pod(name, namespace="shop", **options)
            stack.callback(asked.remove_pod, made.id)
            return made

        store, cart = pod("store-0"), pod("cart-0")
        cache = Shape(rounds=100_000, nagle=False, port=6379, rest=20, reconnect=True)
        half(asked, store, "cache", "serve", "0.0.0.0", cache)
        half(asked, store, "db", "serve", "0.0.0.0", STANDOFF)
        address = asked.address(store)
        half(asked, cart, "app", "load", address, STANDOFF)
        half(asked, cart, "sidecar", "load", address, cache)
        yield asked


def test_names_pod_container_and_node_at_the_end_that_it_watches(shop):
    for pod, end, container, port in (
        ("shop/cart-0", "client", "app", 7000),
        ("shop/store-0", "server", "db", 7000),
    ):
        report = ackward_json("watch", "--pod", pod, "--for", "1s", "--slow", "0ms")
        (finding,) = (found for found in report["findings"] if found["cause"] == "standoff")
        assert finding["server"].endswith(f":{port}")
        process = finding[f"{end}_process"]
        assert (process["pod"], process["container_name"]) == (pod, container)
        assert process["node"] == os.uname().nodename
        assert len(process["container"]) == 12
        assert process["command"] == "python"
        # Of the other pod nothing was watched, and nothing is said.
        assert finding["client_process" if end == "server" else "server_process"] is None
        # Both containers of the pod were seen, each under its own name, also on connections that began meanwhile; but
        # whose the last one was may be too early to tell.
        names = {
            (flow["server"].rpartition(":")[2], flow[f"{end}_process"]["container_name"])
            for flow in report["flows"]
        }
        other = "sidecar" if end == "client" else "cache"
        assert names - {("6379", None)} == {("7000", container), ("6379", other)}


def test_says_it_on_the_terminal_and_on_the_page(shop, tmp_path):
    page = tmp_path / "pod.html"
    done = ackward("watch", "--pod", "shop/cart-0", "--for", "1s", "--report", str(page))
    assert done.returncode == 0, done.stderr
    words = f"of pod shop/cart-0 on node {os.uname().nodename}"
    assert "in container app (" in done.stdout
    assert words in " ".join(done.stdout.replace("│", " ").split())
    assert words in page.read_text()


def test_a_pod_on_the_nodes_network_is_told_from_the_node_by_its_cgroup(asked):
    shape = Shape(rounds=100_000, port=7411)
    with ExitStack() as stack:
        node = asked.run_pod("exporter", namespace="kube-system", host=True)
        stack.callback(asked.remove_pod, node.id)
        half(asked, node, "exporter", "serve", "127.0.0.1", shape)
        other = asked.run_pod("scraper", namespace="kube-system", host=True)
        stack.callback(asked.remove_pod, other.id)
        half(asked, other, "scraper", "load", "127.0.0.1", shape)
        report = ackward_json("watch", "--pod", "kube-system/exporter", "--for", "1s", "--slow", "0ms")
        assert report["exchanges"] > 0
        for flow in report["flows"]:
            assert flow["client_process"] is None
            assert flow["server_process"]["container_name"] == "exporter"
            assert flow["server_process"]["pod"] == "kube-system/exporter"


def test_a_hostile_name_is_shown_and_never_obeyed(asked, tmp_path):
    name = "evil\x1b[31m<script>alert(1)</script>\u202e"
    page = tmp_path / "pod.html"
    pod = asked.run_pod(name, namespace="shop")
    try:
        shape = Shape(rounds=100_000, port=7412)
        half(asked, pod, "one", "serve", "127.0.0.1", shape)
        half(asked, pod, "two", "load", "127.0.0.1", shape)
        done = ackward("watch", "--pod", f"shop/{name}", "--for", "1s", "--report", str(page))
        refused = in_process("watch", "--pod", "shop/other")
    finally:
        asked.remove_pod(pod.id)
    assert done.returncode == 0, done.stderr
    assert r"evil\x1b[31m" in done.stdout.replace("\n", "")
    assert "<script>alert(1)" not in page.read_text()
    assert refused.returncode == 2
    for shown in (done.stdout, done.stderr, refused.stderr):
        assert "\x1b[31m" not in shown
        assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--pod", "shop/nobody"], 2, "the pod 'shop/nobody' does not run on this node"),
        (["--pod", "nobody"], 2, "the pod 'default/nobody' does not run on this node"),
        (["--pod", "shop/"], 2, "names no pod"),
        (["--pod", ""], 2, "names no pod"),
        (["--pod", "shop/nobody", "--netns", "self"], 2, "do not go with it"),
    ],
)
def test_what_names_no_pod_here_is_refused(asked, arguments, code, words):
    done = in_process("watch", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "nothing was watched" in done.stderr.lower()


def test_without_a_runtime_it_says_what_it_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", str(tmp_path / "none.sock"))
    done = in_process("watch", "--pod", "shop/cart-0")
    assert done.returncode == 3
    assert "none.sock cannot be asked: No such file or directory" in done.stderr
    assert "CONTAINER_RUNTIME_ENDPOINT" in done.stderr


def test_fix_reaches_a_pod_by_its_name_and_never_the_node(asked):
    with ExitStack() as stack:
        own = asked.run_pod("own", namespace="shop")
        stack.callback(asked.remove_pod, own.id)
        host = asked.run_pod("host", namespace="shop", host=True)
        stack.callback(asked.remove_pod, host.id)
        done = ackward_json("fix", "quickack", "--pod", "shop/own", "--dry-run")
        assert done["plan"]["namespace"]["inode"] == asked.namespace(own).inode
        assert done["plan"]["namespace"]["path"] == str(cri.pod("shop/own").netns)
        routes = [change["route"] for change in done["plan"]["changes"]]
        assert len(routes) > 2  # not the default ones alone: pods of one node meet over another
        refused = in_process("fix", "quickack", "--pod", "shop/host")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "the pod 'shop/host' is on the node's own network" in refused.stderr
        # Neither its path nor its PID leads there after a boot.
        lasting = in_process("fix", "quickack", "--pod", "shop/own", "--persist")
        assert lasting.returncode == 2
        assert "has no name that it would have again after a boot" in lasting.stderr
        both = in_process("fix", "quickack", "--pod", "shop/own", "--netns", "self")
        assert both.returncode == 2
        assert "Nothing was changed" in both.stderr
