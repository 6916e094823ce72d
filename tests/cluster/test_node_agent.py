"""The node agent as a process: what it keeps on the node, what it repairs, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.node_agent import ANNOTATED, LIST, Node, Running, give_network, has_quickack
from tests.kernel.quickack_hosts import ip, routing
from tests.polling import eventually

from ackward.kernel.inotify import exchange
from ackward.kernel.namespaces import Namespace, temporary
from ackward.node.conflist import TYPE
from ackward.node.wire import HEADER, PROTOCOL


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with temporary("pod") as made:
        give_network(made)
        yield made


def write_as_a_primary_does(path: Path, text: str) -> None:
    """Beside it and renamed: how azure-vnet, Calico and Cilium write theirs."""
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(path)


class TestTheList:
    """The entry is in it while the agent runs, whoever writes it."""

    def test_a_hundred_rewrites_and_no_reader_meets_broken_json(self, node: Node) -> None:
        broken: list[str] = []
        done = threading.Event()

        def read_on() -> None:
            while not done.is_set():
                text = node.list.read_text()
                try:
                    json.loads(text)
                except ValueError:
                    broken.append(text)

        with node.agent() as agent:
            reader = threading.Thread(target=read_on)
            reader.start()
            try:
                for number in range(100):
                    write_as_a_primary_does(node.list, LIST.replace("1.10", f"{number}.50"))
                    assert eventually(lambda: node.has_entry, within=3), (number, agent.lines()[-3:])
                    assert f'"n": {number}.50' in node.list.read_text()
            finally:
                done.set()
                reader.join()
            assert not broken
            assert agent.metric("ackward_node_list_rewrites_total") == 101
        assert not list(node.net_d.glob(".*")), "nothing half-written is left"

    def test_a_writer_that_writes_in_place_is_waited_for(self, node: Node) -> None:
        """Truncated, half written, paused, finished: what counts is what is there when it closes."""
        with node.agent() as agent:
            text = LIST.replace("1.10", "7.70")
            for _ in range(2):
                with node.list.open("w") as file:
                    file.write(text[: len(text) // 2])
                    file.flush()
                    assert eventually(lambda: agent.get("/readyz")[0] == 503)
                    file.write(text[len(text) // 2 :])
                assert eventually(lambda: node.has_entry, within=3)
                assert '"n": 7.70' in node.list.read_text()

    def test_a_list_that_comes_first_from_now_on_gets_the_entry(self, node: Node) -> None:
        with node.agent() as agent:
            first = node.net_d / "05-cilium.conflist"
            write_as_a_primary_does(first, LIST)
            assert eventually(lambda: TYPE in first.read_text())
            first.unlink()
            assert eventually(lambda: node.has_entry)
            assert agent.get("/readyz")[0] == 200

    def test_mode_owner_and_a_link_stay(self, node: Node) -> None:
        elsewhere = node.root / "elsewhere.conflist"
        elsewhere.write_text(LIST)
        elsewhere.chmod(0o640)
        os.chown(elsewhere, 65534, 65533)
        node.list.unlink()
        node.list.symlink_to(elsewhere)
        with node.agent():
            assert node.has_entry
            assert node.list.is_symlink()
            there = elsewhere.stat()
            assert (there.st_mode & 0o7777, there.st_uid, there.st_gid) == (0o640, 65534, 65533)

    def test_a_binary_that_is_wiped_is_put_back(self, node: Node) -> None:
        with node.agent() as agent:
            for times in (2, 3):
                shutil.rmtree(node.bin)
                assert eventually(lambda times=times: len(agent.events("binary installed")) == times)
                assert eventually(lambda: node.status().ready and node.marker.exists())
                assert node.has_entry
                assert node.status().binary.current
            assert agent.get("/readyz")[0] == 200

    def test_without_its_binary_the_entry_goes(self, node: Node) -> None:
        in_the_way = node.root / "no directory"
        in_the_way.touch()
        with node.agent() as agent:
            assert exchange(node.bin, in_the_way)
            assert eventually(lambda: node.list.read_text() == LIST)
            assert eventually(lambda: not node.marker.exists())
            reason = json.loads(agent.get("/readyz")[1])["reasons"]["entry"]
            assert "is not there" in reason
            assert "Next: " in reason
            assert node.status().reasons == {"entry": reason}
            assert exchange(node.bin, in_the_way)
            assert eventually(lambda: node.has_entry and node.marker.exists())

    def test_who_takes_it_out_all_the_time_is_not_fought(self, node: Node) -> None:
        with node.agent() as agent:
            for _ in range(2_000):
                if TYPE in node.list.read_text():
                    write_as_a_primary_does(node.list, LIST)
                elif any("all the time" in line.get("why", "") for line in agent.events("entry")):
                    break
                else:
                    eventually(lambda: TYPE in node.list.read_text(), within=0.1)
            assert any("all the time" in line["why"] for line in agent.events("entry") if "why" in line)
            assert agent.metric("ackward_node_list_rewrites_total") < 140
            assert agent.get("/healthz")[0] == 200
            assert eventually(lambda: node.has_entry), "it is put back when the other rests"

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("10-a.conf", '{"cniVersion": "0.4.0", "name": "a", "type": "ptp"}', "a single plugin"),
            ("10-a.conflist", LIST.replace('"ptp"', f'"ptp"}}, {{"type": "{TYPE}"'), "did not make"),
            ("10-a.conflist", LIST.replace("0.4.0", "9.0.0"), "does not speak"),
            ("10-a.conflist", LIST[:-9], "no list of plugins"),
        ],
    )
    def test_a_list_that_is_not_ours_to_change_is_refused_aloud(
        self, node: Node, name: str, text: str, words: str
    ) -> None:
        node.list.unlink()
        path = node.net_d / name
        path.write_text(text)
        with node.agent(ready=False) as agent:
            assert eventually(lambda: any(words in line.get("why", "") for line in agent.events("entry")))
            agent.http = agent.events("agent started")[0]["listen"]
            status, body = agent.get("/readyz")
            assert status == 503
            assert words in body
            assert node.status().reasons == json.loads(body)["reasons"]
            assert words in node.ackward("status").stdout
            assert not node.marker.exists()
            assert path.read_text() == text
            assert agent.end() == 0


class TestTheMarker:
    """There exactly while new pods get quickack."""

    def test_it_goes_with_the_agent_however_that_ends_and_comes_back(self, node: Node) -> None:
        with node.agent() as agent:
            assert eventually(node.marker.is_file)
            assert agent.end(signal.SIGKILL) == -signal.SIGKILL
            assert eventually(lambda: not node.marker.exists())
        with node.agent() as agent:
            assert eventually(node.marker.is_file)
            assert agent.end() == 0
            assert not node.marker.exists()
            assert node.has_entry, "an upgrade does not take the entry out"

    def test_it_is_looked_after(self, node: Node) -> None:
        with node.agent():
            assert eventually(node.marker.is_file)
            node.marker.unlink()
            assert eventually(node.marker.is_file)

    def test_a_stale_one_goes_at_once(self, node: Node) -> None:
        node.marker.write_text("of a boot before")
        node.list.unlink()
        with node.agent(ready=False) as agent:
            assert eventually(lambda: bool(agent.events("agent started")))
            assert not node.marker.exists()
            node.list.write_text(LIST)
            assert eventually(node.marker.is_file)

    def test_a_directory_in_its_place_is_complained_of(self, node: Node) -> None:
        node.marker.mkdir()
        with node.agent() as agent:
            assert eventually(
                lambda: any(
                    "is a directory" in line["error"] for line in agent.events("marker cannot be kept")
                )
            )
            assert len(agent.events("marker cannot be kept")) == 1
            node.marker.rmdir()
            assert eventually(node.marker.is_file)


class TestPods:
    """What pods ask for."""

    def test_a_pod_gets_it_and_what_it_lost_is_given_back_by_the_next_agent(
        self, node: Node, pod: Namespace
    ) -> None:
        before = routing(pod)
        with node.agent() as agent:
            done = node.cni(pod, "ADD", ANNOTATED)
            assert (done.returncode, json.loads(done.stdout)["interfaces"]) == (0, []), done
            assert has_quickack(pod)
            assert agent.metric('ackward_node_requests_total{code="0",command="ADD"}') == 1
            assert [line["pod"] for line in agent.events("request served")] == [f"default/{pod.name}"]
            agent.end(signal.SIGKILL)
        ip(pod, "route", "replace", "default", "via", "198.18.7.1")
        assert not has_quickack(pod)
        with node.agent() as agent:
            assert eventually(lambda: has_quickack(pod), within=5)
            assert eventually(lambda: agent.metric('ackward_node_repaired_total{way="lost"}') == 1)
            assert node.cni(pod, "DEL").returncode == 0
            assert routing(pod) == before
            assert node.status().pods == ()

    def test_pods_start_while_the_agent_is_dead_and_get_it_within_five_seconds_of_its_return(
        self, node: Node
    ) -> None:
        with ExitStack() as ending:
            pods = [ending.enter_context(temporary("pod")) for _ in range(4)]
            for pod in pods:
                give_network(pod)
            with node.agent() as agent:
                agent.end(signal.SIGKILL)
            for pod in pods[:3]:
                assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
                assert not has_quickack(pod)
            assert node.cni(pods[3], "ADD", {}).returncode == 0
            assert node.cni(pods[2], "DEL").returncode == 0, "gone before anybody could repair it"
            assert node.status().missed == 2, "who asks for nothing misses nothing"
            with node.agent() as agent:
                assert eventually(lambda: all(map(has_quickack, pods[:2])), within=5)
                assert eventually(lambda: node.status().missed == 0)
                assert not has_quickack(pods[2])
                assert not has_quickack(pods[3])
                assert len(node.status().pods) == 2
                assert agent.get("/healthz")[0] == 200

    def test_pods_that_are_gone_are_forgotten(self, node: Node) -> None:
        with temporary("pod") as pod:
            give_network(pod)
            with node.agent() as agent:
                assert node.cni(pod, "ADD", ANNOTATED).returncode == 0
                agent.end(signal.SIGKILL)
        with node.agent() as agent:
            assert eventually(lambda: node.status().pods == ())
            assert eventually(lambda: len(agent.events("pod forgotten")) == 1)
            assert agent.events("pod forgotten")[0]["pod"] == f"default/{pod.name}"


class TestTheEnd:
    """SIGTERM drains."""

    def test_what_runs_is_finished(self, node: Node, pod: Namespace) -> None:
        with node.agent() as agent, socket.socket(socket.AF_UNIX) as client:
            request = node.request(pod, "ADD", ANNOTATED).pack()
            client.connect(str(node.run / "agent.sock"))
            client.sendall(request[:-1])
            assert eventually(lambda: agent.metric("process_open_fds") > 0)
            agent.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: not node.marker.exists())
            client.sendall(request[-1:])
            assert client.recv(HEADER.size, socket.MSG_WAITALL)[: len(PROTOCOL)] == PROTOCOL
            assert agent.process.wait(10) == 0
        assert has_quickack(pod)
        assert not (node.run / "agent.sock").exists()
        assert node.cni(pod, "DEL").returncode == 0

    def test_a_second_agent_is_refused_and_harms_nothing(self, node: Node) -> None:
        with node.agent() as first:
            with node.agent(ready=False) as second:
                assert second.process.wait(20) == 3
                assert "another node agent" in second.log.read_text()
            assert first.get("/readyz")[0] == 200
            assert eventually(node.marker.is_file)

    def test_its_log_is_json_lines_without_what_a_pod_may_keep_secret(
        self, node: Node, pod: Namespace
    ) -> None:
        with node.agent() as agent:
            secret = {**ANNOTATED, "password": "s3cret", "ackward.io/nodelay": "no-port"}
            assert node.cni(pod, "ADD", secret).returncode == 0
            assert agent.end() == 0
            assert "s3cret" not in agent.log.read_text()
            served = agent.events("request served")[0]
            assert served["command"] == "ADD"
            assert "no-port" in served["complaints"][0]
            assert {"time", "level", "event"} <= served.keys()


def test_http_serves_many_and_is_not_held_up_by_a_silent_client(node: Node) -> None:
    with node.agent() as agent, ExitStack() as ending:
        host, port = agent.http.rsplit(":", 1)
        for _ in range(20):
            ending.enter_context(socket.create_connection((host, int(port))))
        assert eventually(lambda: _asked(agent) == 200, within=10)
        assert agent.get("/nothing")[0] == 404


def _asked(agent: Running) -> int:
    try:
        return agent.get("/healthz")[0]
    except OSError:  # all places are taken by those who say nothing
        return 0


def test_it_imports_no_tables_and_no_client_of_kubernetes() -> None:
    heavy = ("polars", "numpy", "jinja2", "rich", "lightkube", "grpc")
    code = (
        f"import sys, ackward.node.agent, ackward.cli.node; print(*(m for m in {heavy} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
