"""Chains of real CNI plugins as libcni runs them, on a node of their own; and the agent that our stub asks.

The plugins' host side is a namespace too: `bridge` with isDefaultGateway turns on forwarding where it runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.quickack_hosts import ip, routing
from tests.polling import eventually
from tests.unit.stub_runs import ANNOTATIONS, STUBS, stub

from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.node.cni_commands import Commands, Served
from ackward.node.cni_missed import Missed
from ackward.node.pods import Pods
from ackward.node.requests import Server

DEBIAN = Path("/usr/lib/cni")
IFNAME = "eth0"
ASKS = {"enable-quickack": "yes"}
#: Routes of a wired pod that get quickack: both families, connected and default.
EVERY = 4
#: Debian's plugins (1.1.1) end here: for a newer specification they run at this one, and their result is raised.
NEWEST_OF_DEBIAN = "1.0.0"

Json = dict[str, Any]


class PluginFailed(Exception):
    """A plugin of a chain gave an error object: ``code`` is its."""

    def __init__(self, plugin: str, error: Json) -> None:
        super().__init__(f"{plugin}: {error}")
        self.code: int = error["code"]
        self.error = error


@dataclass
class Chain:
    """A network configuration list, executed for pods as libcni does it (libcni/api.go: buildOneConfig)."""

    node: Namespace
    name: str
    version: str
    plugins: list[Json]
    results: dict[str, Json] = field(default_factory=dict)

    def add(
        self, pod: Namespace, annotations: Mapping[str, str] | None = None, result: Json | None = None
    ) -> Json:
        """Each plugin with the result of the one before; gives the last one's. ``result``: of a plugin that is not here."""
        for plugin in self.plugins:
            result = self._execute("ADD", plugin, pod, result, annotations)
        assert result is not None
        self.results[pod.name] = result
        return result

    def check(self, pod: Namespace, annotations: Mapping[str, str] | None = None) -> None:
        for plugin in self.plugins:
            self._execute("CHECK", plugin, pod, self.results[pod.name], annotations)

    def delete(
        self, pod: Namespace, annotations: Mapping[str, str] | None = None, *, gone: bool = False
    ) -> None:
        """In reverse; before 0.4.0 without a result. ``gone``: as containerd's second DEL, without a namespace."""
        result = self.results.get(pod.name) if self.version >= "0.4.0" else None
        for plugin in reversed(self.plugins):
            self._execute("DEL", plugin, pod, result, annotations, netns="" if gone else None)

    def _execute(
        self,
        command: str,
        plugin: Json,
        pod: Namespace,
        result: Json | None,
        annotations: Mapping[str, str] | None,
        netns: str | None = None,
    ) -> Json | None:
        ours = plugin["type"] == "ackward-cni"
        version = self.version if ours else min(self.version, NEWEST_OF_DEBIAN)
        config: Json = {**plugin, "cniVersion": version, "name": self.name}
        if result is not None:
            config["prevResult"] = {**result, "cniVersion": version}
        if annotations is not None and plugin.get("capabilities", {}).get(ANNOTATIONS):
            config["runtimeConfig"] = {ANNOTATIONS: dict(annotations)}
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_of(pod),
            "CNI_NETNS": str(pod.path) if netns is None else netns,
            "CNI_IFNAME": IFNAME,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name};K8S_POD_UID=u-{pod.name}",
            "CNI_PATH": f"{DEBIAN}:{STUBS}",
        }
        argv = stub() if ours else [str(DEBIAN / plugin["type"])]
        done = subprocess.run(
            command_inside(self.node, argv),
            input=json.dumps(config).encode(),
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            raise PluginFailed(plugin["type"], json.loads(done.stdout))
        if command != "ADD":
            return None
        found: Json = json.loads(done.stdout)
        if ours:
            assert done.stdout == json.dumps(config["prevResult"]).encode()
        return found


def container_of(pod: Namespace) -> str:
    """A container id for the pod."""
    return f"id-{pod.name}"


@dataclass
class Agent:
    """The request side of the node agent, in this process."""

    directory: Path
    served: list[Served] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pods = Pods(self.directory / "attachments", self.troubles.append)
        self.missed = Missed(self.directory / "missed", self.troubles.append)
        self.commands = Commands(self.pods, self.missed, self.served.append)

    @property
    def socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def entry(self) -> Json:
        """Our entry in a chain."""
        return {"type": "ackward-cni", "capabilities": {ANNOTATIONS: True}, "agentSocket": str(self.socket)}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve; at the end all that was begun is finished."""
        server = Server(self.socket, self.commands, self.troubles.append)
        server.open()
        stop = threading.Event()
        thread = threading.Thread(target=server.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
            server.close()
        assert not thread.is_alive()


@contextmanager
def pod(label: str = "pod") -> Iterator[Namespace]:
    """A sandbox's namespace: empty. Addresses of IPv6 need no second of waiting for others who have them."""
    with temporary(label) as made:
        sysctl.write(made, "net.ipv6.conf.default.accept_dad", "0")
        yield made


@contextmanager
def wired_pod(commands: Path | None = None, label: str = "pod") -> Iterator[Namespace]:
    """A pod with an interface to nowhere, and default routes; or what the commands of `ip -batch` make of it."""
    with pod(label) as made:
        ip(made, "link", "add", IFNAME, "type", "veth", "peer", "name", "host0")
        for name in (IFNAME, "host0"):
            ip(made, "link", "set", name, "up")
        if commands is not None:
            lines = commands.read_text(encoding="ascii").splitlines()
            for line in lines:
                ip(made, *line.split())
        else:
            ip(made, "addr", "add", "198.19.7.2/24", "dev", IFNAME)
            ip(made, "addr", "add", "fdac:7::2/64", "dev", IFNAME, "nodad")
            ip(made, "route", "add", "default", "via", "198.19.7.1")
            ip(made, "-6", "route", "add", "default", "via", "fdac:7::1")
        assert eventually(lambda: _settled(made))
        yield made


def _settled(pod: Namespace) -> bool:
    """IPv6 makes its routes when the link has come up, a moment later."""
    addresses = re.findall(r"inet6 (\S+?)/", ip(pod, "-6", "-o", "addr", "show"))
    routes = "\n".join(routing(pod)["routes-6"])
    return len(addresses) >= 2 and all(f"local {address} dev" in routes for address in addresses)


def without_quickack(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """A routing as it would be without ours."""
    return {name: sorted(line.replace(" quickack 1", "") for line in lines) for name, lines in found.items()}


def unicast(pod: Namespace) -> list[str]:
    """The routes of a pod that lead somewhere, of both families and all tables but `local`."""
    found = routing(pod)
    lines = [*found["routes-4"], *found["routes-6"]]
    return [line for line in lines if line.startswith("unicast") and "table local" not in line]


def quick(pod: Namespace) -> list[str]:
    """Those of them that have quickack."""
    return [line for line in unicast(pod) if "quickack 1" in line]
