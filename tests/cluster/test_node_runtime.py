"""The agent beside a real container runtime: pods that were there before it, the daemon form, and inside a container with
the rights of the manifest.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.api_server import Api, api_server, kubeconfig
from tests.cluster.containerd import Containerd, Sandboxed
from tests.cluster.node_agent import ANNOTATED, Node
from tests.cluster.test_node_manifests import pod_specs, rendered
from tests.kernel.lab_hosts import ACKWARD
from tests.polling import eventually

from ackward.kernel import routes
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.model.node import Form

_NUMBERS = itertools.count()


@pytest.fixture
def node(tmp_path: Path, asked: Containerd) -> Node:
    return Node(tmp_path, environment={"CONTAINER_RUNTIME_ENDPOINT": f"unix://{asked.socket}"})


@contextmanager
def pod(runtime: Containerd, **options) -> Iterator[Sandboxed]:
    made = runtime.run_pod(f"node-{next(_NUMBERS)}", **options)
    try:
        yield made
    finally:
        runtime.remove_pod(made.id)


def has_quickack(namespace: Namespace) -> bool:
    """Whether every default route has it; there is one of each family."""
    with Netlink(namespace) as netlink:
        found = [
            route.metric("quickack")
            for family in (4, 6)
            for route in routes.dump(netlink, family)
            if route.key.destination.prefixlen == 0 and route.key.table == 254
        ]
    assert len(found) >= 2
    return all(found)


def test_pods_that_were_there_before_get_it_and_others_do_not(node: Node, asked: Containerd) -> None:
    with (
        pod(asked, annotations=ANNOTATED) as annotated,
        pod(asked) as other,
        pod(asked, annotations=ANNOTATED, host=True) as on_the_host,
        node.agent() as agent,
    ):
        assert eventually(lambda: has_quickack(asked.namespace(annotated)), within=5)
        assert not has_quickack(asked.namespace(other))
        assert eventually(lambda: agent.metric('ackward_node_repaired_total{way="running"}') == 1)
        assert [line.pod for line in node.status().pods] == [f"default/{annotated.name}"]
        assert on_the_host.name not in agent.log.read_text()
        assert agent.get("/healthz")[0] == 200


@contextmanager
def following(node: Node, api: Api) -> Iterator:
    config = node.root / "kubeconfig"
    config.write_text(kubeconfig(api, "s3cret"))
    with node.agent("--no-cni", "--node-name", "node-1", "--kubeconfig", str(config)) as agent:
        yield agent


class TestTheDaemonForm:
    """Without a CNI plugin: what the API server says of the pods of this node."""

    def test_annotations_come_and_go_while_a_pod_runs(self, node: Node, asked: Containerd) -> None:
        with api_server("s3cret") as api, pod(asked) as made, pod(asked) as other:
            namespace = asked.namespace(made)
            for one in (made, other):
                api.put(one.name, {})
            with following(node, api) as agent:
                assert eventually(node.marker.is_file)
                assert eventually(lambda: agent.events("marker made"))
                assert not agent.events("marker removed"), "there was none"
                assert not has_quickack(namespace)
                api.put(made.name, ANNOTATED)
                assert eventually(lambda: has_quickack(namespace), within=5)
                assert not has_quickack(asked.namespace(other))
                api.put(made.name, {})
                assert eventually(lambda: not has_quickack(namespace), within=5)
                assert eventually(lambda: node.status().pods == ())
                api.put(other.name, {"enable-quickack": "nonsense"})
                assert eventually(
                    lambda: agent.metric("ackward_node_annotation_complaints_total") == 1, within=5
                )
                (line,) = [line for line in agent.log.read_text().splitlines() if "nonsense" in line]
                assert json.loads(line)["level"] == "warning"
                assert json.loads(line)["pod"] == f"default/{other.name}"
                assert not (node.bin / "ackward-cni").exists(), "no plugin is installed"
                assert node.plugins() == ["ptp"]
                assert "s3cret" not in agent.log.read_text()
                assert agent.end() == 0
                assert not node.marker.exists()

    def test_what_happened_while_it_was_dead_is_caught_up(self, node: Node, asked: Containerd) -> None:
        with api_server("s3cret") as api, pod(asked) as first, pod(asked) as second:
            api.put(first.name, ANNOTATED)
            api.put(second.name, {})
            with following(node, api) as agent:
                assert eventually(lambda: has_quickack(asked.namespace(first)), within=5)
                agent.end(signal.SIGKILL)
            api.put(first.name, {})
            api.put(second.name, ANNOTATED)
            with following(node, api):
                assert eventually(lambda: has_quickack(asked.namespace(second)), within=5)
                assert eventually(lambda: not has_quickack(asked.namespace(first)), within=5)

    def test_without_the_api_server_the_marker_goes(self, node: Node) -> None:
        with api_server("s3cret") as api, following(node, api) as agent:
            assert eventually(node.marker.is_file)
            api.refusing = True
            api.break_off()
            assert eventually(lambda: not node.marker.exists())
            status, body = agent.get("/readyz")
            assert (status, "Next: " in body) == (503, True)
            assert node.status().reasons == json.loads(body)["reasons"]
            assert agent.get("/healthz")[0] == 200, "a start from anew would not help"

    def test_status_and_uninstall_know_the_form(self, node: Node) -> None:
        with api_server("s3cret") as api, following(node, api):
            found = node.status()
            assert (found.agent.form, found.ready, found.reasons) == (Form.DAEMON, True, {})
            printed = node.ackward("status").stdout
            assert "ready   yes" in printed
            assert "daemon form" in printed
            refused = node.ackward("uninstall")
            assert (refused.returncode, "put the entry back" in refused.stderr) == (2, False)
            assert "give pods again" in refused.stderr


class TestTheRightsOfTheManifestAreEnough:
    """The agent in a container: read-only root, no_new_privs, the manifest's capabilities and no others."""

    def run(self, node: Node, asked: Containerd, agents: Sandboxed, form: str, *options: str) -> None:
        (spec,) = pod_specs(rendered(form))
        rights = spec["containers"][0]["securityContext"]["capabilities"]["add"]
        command = [
            "/usr/bin/env",
            f"CONTAINER_RUNTIME_ENDPOINT={asked.socket}",
            *(ACKWARD, "node", "agent", *node.places, *options),
            *("--marker", str(node.marker), "--listen", "127.0.0.1:0"),
        ]
        mounts = {str(path): path for path in (node.root, asked.root)}
        asked.run_container(agents, "agent", command, writable=mounts, only=rights)

    def test_the_plugins_agent(self, node: Node, asked: Containerd) -> None:
        with pod(asked, annotations=ANNOTATED) as annotated, pod(asked, host=True) as agents:
            self.run(node, asked, agents, "base")
            assert eventually(lambda: node.has_entry and node.marker.is_file(), within=10)
            assert eventually(lambda: has_quickack(asked.namespace(annotated)), within=5)
            assert node.status().ready

    def test_the_daemon_form(self, node: Node, asked: Containerd) -> None:
        config = node.root / "kubeconfig"
        with (
            api_server("s3cret", asked.host) as api,
            pod(asked) as annotated,
            pod(asked, host=True) as agents,
        ):
            api.put(annotated.name, ANNOTATED)
            config.write_text(kubeconfig(api, "s3cret"))
            options = ("--no-cni", "--node-name", "node-1", "--kubeconfig", str(config))
            self.run(node, asked, agents, "daemon", *options)
            assert eventually(lambda: has_quickack(asked.namespace(annotated)), within=15)
            assert eventually(node.marker.is_file)
