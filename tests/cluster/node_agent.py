"""A node of our own for tests of the agent: its directories below a temporary one, and the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from tests.kernel.lab_hosts import ACKWARD
from tests.kernel.quickack_hosts import ip
from tests.polling import eventually

from ackward.cli.main import run
from ackward.kernel.namespaces import Namespace
from ackward.model.node import NodeStatus
from ackward.node.conflist import TYPE
from ackward.node.places import Places
from ackward.node.status import status
from ackward.node.wire import Request

#: As a primary CNI plugin writes it.
LIST = '{\n  "cniVersion": "0.4.0",\n  "name": "podnet",\n  "plugins": [\n    {"type": "ptp", "n": 1.10}\n  ]\n}\n'
ANNOTATED = {"enable-quickack": "true"}


def in_process(*command: str) -> subprocess.CompletedProcess[str]:
    """``ackward COMMAND`` as its entry point runs it, with what it printed."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(command)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


@dataclass
class Running:
    """An agent that runs."""

    process: subprocess.Popen[str]
    log: Path
    http: str = ""

    def lines(self) -> list[dict]:
        """What it has logged."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def events(self, event: str) -> list[dict]:
        return [line for line in self.lines() if line["event"] == event]

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """One metric by its name and labels as they are written."""
        rows = [line.rpartition(" ") for line in self.get("/metrics")[1].splitlines()]
        return next((float(value) for key, _, value in rows if key == name), 0.0)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and give its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@dataclass
class Node:
    """The directories of a node."""

    root: Path
    extra: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.net_d, self.bin, self.run = self.root / "net.d", self.root / "bin", self.root / "run"
        self.marker, self.list = self.root / "quickack-enabled", self.net_d / "10-podnet.conflist"
        self.net_d.mkdir()
        self.list.write_text(LIST)

    @property
    def places(self) -> list[str]:
        options = {"--cni-conf-dir": self.net_d, "--cni-bin-dir": self.bin, "--run-dir": self.run}
        return [str(word) for pair in options.items() for word in pair]

    def ackward(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``ackward node WORD`` on this node, in this process: starting one takes longer than what it does."""
        command = ["node", *words, *self.places]
        if words[0] != "install":
            command += ["--marker", str(self.marker)]
        return in_process(*command)

    def status(self) -> NodeStatus:
        """What `ackward node status` reads, without starting a process for it."""
        return status(Places(configuration=self.net_d, binaries=self.bin, run=self.run, marker=self.marker))

    @contextmanager
    def agent(self, *options: str, ready: bool = True) -> Iterator[Running]:
        """Run the agent as a service manager would; it is ended at the end."""
        command = [ACKWARD, "node", "agent", *self.places, "--marker", str(self.marker)]
        command += ["--listen", "127.0.0.1:0", *self.extra, *options]
        log = self.root / f"log.{len(list(self.root.glob('log.*')))}"
        with log.open("w") as stderr:
            # No runtime but the one of a test: this machine's own pods are none of ours.
            environment = {
                **os.environ,
                "CONTAINER_RUNTIME_ENDPOINT": str(self.root / "none.sock"),
                **self.environment,
            }
            process = subprocess.Popen(command, stderr=stderr, text=True, env=environment)
        running = Running(process, log)
        try:
            if ready:
                assert eventually(lambda: bool(running.events("agent started"))), log.read_text()
                running.http = running.events("agent started")[0]["listen"]
                assert eventually(lambda: running.get("/readyz")[0] == 200), running.get("/readyz")
            yield running
        finally:
            process.kill()
            process.wait()

    def plugins(self) -> list[str]:
        """The types in the list, in order."""
        return [plugin["type"] for plugin in json.loads(self.list.read_text())["plugins"]]

    @property
    def has_entry(self) -> bool:
        return self.plugins() == ["ptp", TYPE]

    def request(self, pod: Namespace, command: str, annotations: Mapping[str, str] | None = None) -> Request:
        """What a runtime gives the stub for a pod."""
        entry = json.loads(self.list.read_text())["plugins"][-1]
        configuration = {
            **entry,
            "cniVersion": "0.4.0",
            "name": "podnet",
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": dict(annotations or {})},
            "prevResult": {"cniVersion": "0.4.0", "interfaces": [], "ips": [], "dns": {}},
        }
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name}",
        }
        return Request(variables, json.dumps(configuration).encode())

    def cni(
        self, pod: Namespace, command: str, annotations: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the installed stub as a runtime does."""
        request = self.request(pod, command, annotations)
        return subprocess.run(
            [str(self.bin / TYPE)],
            input=request.configuration,
            env=dict(request.environment),
            capture_output=True,
            timeout=20,
            check=False,
        )


def give_network(pod: Namespace) -> None:
    """A pod's network as a primary plugin leaves it: one interface, a default route of each family."""
    ip(pod, "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
    for end in ("eth0", "wire"):
        ip(pod, "link", "set", end, "up", "addrgenmode", "none")
    ip(pod, "addr", "add", "198.18.7.2/24", "dev", "eth0")
    ip(pod, "addr", "add", "fdac:7::2/64", "dev", "eth0", "nodad")
    ip(pod, "route", "add", "default", "via", "198.18.7.1")
    ip(pod, "-6", "route", "add", "default", "via", "fdac:7::1")


def has_quickack(pod: Namespace) -> bool:
    """Whether both default routes have it."""
    routes = [ip(pod, family, "route", "show", "default") for family in ("-4", "-6")]
    return all("quickack 1" in route for route in routes)
