"""Chained after real plugins, on every version of the specification: quickack is set, and all else is as it was."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import (
    ASKS,
    IFNAME,
    Agent,
    Chain,
    Json,
    PluginFailed,
    container_of,
    pod,
    quick,
    unicast,
    wired_pod,
    without_quickack,
)
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, advertise, ip, routing
from tests.polling import eventually
from tests.unit.stub_runs import configuration, run

from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.kernel.probes import cgroup2_mount
from ackward.node.cni import VALID_ATTACHMENTS, VERSIONS

DATA = Path(__file__).parents[1] / "data/cni"
FAMILIES = {"IPv4": ("4",), "IPv6": ("6",), "dual stack": ("4", "6")}
RANGES = {"4": ("10.177.0.0/24", "0.0.0.0/0"), "6": ("fdac:177::/64", "::/0")}


@pytest.fixture
def node() -> Iterator[Namespace]:
    with temporary("node") as made:
        yield made


def primary(plugin: str, families: tuple[str, ...], directory: Path) -> Json:
    """Debian's plugin with host-local, as its own documentation configures it."""
    ipam: Json = {
        "type": "host-local",
        "dataDir": str(directory / "ipam"),
        "ranges": [[{"subnet": RANGES[family][0]}] for family in families],
    }
    if plugin == "bridge":  # isDefaultGateway makes the default routes by itself
        return {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": False, "ipam": ipam}
    return {
        "type": "ptp",
        "ipMasq": False,
        "ipam": ipam | {"routes": [{"dst": RANGES[family][1]} for family in families]},
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("families", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_after_a_real_plugin(
    plugin: str, families: tuple[str, ...], version: str, agent: Agent, node: Namespace, tmp_path: Path
) -> None:
    chain = Chain(node, "podnet", version, [primary(plugin, families, tmp_path), agent.entry])
    alone = Chain(node, "podnet", version, chain.plugins[:1])
    with pod() as here:
        result = alone.add(here, ASKS)
        before = routing(here)
        ours = Chain(node, "podnet", version, [agent.entry])
        assert ours.add(here, ASKS, result)["ips"] == result["ips"]
        assert without_quickack(routing(here)) == before
        assert len(quick(here)) == len([line for line in unicast(here) if "fe80" not in line])
        assert len([line for line in quick(here) if " default " in line]) == len(families)
        if version >= "0.4.0":
            ours.check(here, ASKS)
            family, gateway = ("-4", "10.177.0.1") if "4" in families else ("-6", "fdac:177::1")
            ip(here, family, "route", "replace", "default", "via", gateway, "dev", IFNAME)
            with pytest.raises(PluginFailed, match=r"/0.*has quickack off") as caught:
                ours.check(here, ASKS)
            assert caught.value.code == 100
        chain.results[here.name] = result
        chain.delete(here, ASKS)
        chain.delete(here, ASKS, gone=True)
    assert [served.code for served in agent.served if served.command != "CHECK"] == [0, 0, 0]


def test_the_whole_chain_and_a_pod_that_does_not_ask(agent: Agent, node: Namespace, tmp_path: Path) -> None:
    chain = Chain(node, "podnet", "1.0.0", [primary("bridge", ("4", "6"), tmp_path), agent.entry])
    with pod("asks") as asks, pod("plain") as plain:
        chain.add(asks, ASKS)
        chain.add(plain, {"app": "web"})
        assert (len(quick(asks)), quick(plain)) == (
            4,
            [],
        )  # the default and the connected route of each family
        chain.check(asks, ASKS)
        chain.check(plain, {"app": "web"})
        address = next(one["address"].split("/")[0] for one in chain.results[asks.name]["ips"])
        with Conversation(plain, asks, address, 7000) as talk:
            assert talk.median() < SLOW_MS
        address = next(one["address"].split("/")[0] for one in chain.results[plain.name]["ips"])
        with Conversation(asks, plain, address, 7000) as talk:
            assert talk.median() > SLOW_MS
        for one in (asks, plain):
            chain.delete(one)
    assert sysctl.read(node, "net.ipv4.ip_forward") == "1"  # by `bridge`: on the node that it ran on


def test_azure(agent: Agent, node: Namespace) -> None:
    """Azure's layout: a gateway that nobody has, no connected routes, a real `portmap` before us."""
    conflist = json.loads((DATA / "azure-transparent.conflist").read_text(encoding="utf-8"))
    result = json.loads((DATA / "azure-transparent.result.json").read_text(encoding="utf-8"))
    chain = Chain(node, conflist["name"], conflist["cniVersion"], [*conflist["plugins"][1:], agent.entry])
    with wired_pod(DATA / "azure-transparent.ip") as here:
        before, neighbours = routing(here), ip(here, "neigh", "show", "nud", "permanent")
        assert chain.add(here, ASKS, result) == result
        assert without_quickack(routing(here)) == before
        assert [line.partition(" proto ")[0] for line in quick(here)] == [
            "unicast 169.254.1.1 dev eth0 table main",
            "unicast default via 169.254.1.1 dev eth0 table main",
            "unicast default via fe80::1234:5678:9abc dev eth0 table main",
        ]
        assert ip(here, "neigh", "show", "nud", "permanent") == neighbours
        # Its list is of 0.3.0, which has no CHECK; a newer one would ask this.
        newer = Chain(node, conflist["name"], "1.1.0", [agent.entry], {here.name: result})
        newer.check(here, ASKS)
        ip(here, "-6", "route", "replace", "default", "via", "fe80::1234:5678:9abc", "dev", IFNAME)
        with pytest.raises(PluginFailed, match=r"::/0.*quickack off"):
            newer.check(here, ASKS)
        collected(agent, conflist["name"], kept=[here])
        assert len(quick(here)) == 2
        chain.delete(here)
        assert routing(here) == before


#: What pods may have: routes by source and table, several gateways, attributes that others set.
ROUTES = """
route add default via 198.19.7.1 dev eth0 metric 50 mtu 1400 initcwnd 20
route add default via 198.19.7.9 dev eth0 metric 70 src 198.19.7.2
route add default table 100 via 198.19.7.3 dev eth0 advmss 1300
route add 10.0.0.0/8 table 100 via 198.19.7.3 dev eth0
route add default table 200 nexthop via 198.19.7.3 dev eth0 weight 2 nexthop via 198.19.7.4 dev eth0
rule add from 198.19.7.2 lookup 100
-6 route add default table 100 via fdac:7::3 dev eth0 mtu 1400
-6 rule add from fdac:7::2 lookup 100
""".strip().splitlines()


def test_every_route_of_every_table_and_nothing_else(agent: Agent, node: Namespace) -> None:
    chain = Chain(node, "podnet", "1.0.0", [agent.entry])
    with wired_pod() as here:
        for line in ROUTES:
            ip(here, *line.split())
        before = routing(here)
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        assert without_quickack(routing(here)) == before
        assert len([line for line in quick(here) if " default " in line]) == 7
        assert [line for line in unicast(here) if "quickack" not in line and "fe80" not in line] == []
        chain.check(here, ASKS)
        ip(
            here,
            "route",
            "change",
            "default",
            "table",
            "100",
            "via",
            "198.19.7.3",
            "dev",
            IFNAME,
            "advmss",
            "1300",
        )
        with pytest.raises(PluginFailed, match=r"table 100.*quickack off"):
            chain.check(here, ASKS)
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})  # the same again: what was lost is back
        chain.check(here, ASKS)
        assert without_quickack(routing(here)) == before
        chain.delete(here)
        assert routing(here) == before


def test_two_gateways_of_one_metric_are_left_alone_and_the_pod_starts(agent: Agent, node: Namespace) -> None:
    chain = Chain(node, "podnet", "1.0.0", [agent.entry])
    with wired_pod() as here:
        ip(here, "route", "append", "default", "via", "198.19.7.9")
        before = routing(here)
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        assert routing(here) == before
        assert "same metric" in agent.served[-1].problems[0]
        chain.plugins = [{**agent.entry, "failurePolicy": "closed"}]
        with pytest.raises(PluginFailed, match="same metric") as caught:
            chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        assert caught.value.code == 101
        assert routing(here) == before


def test_a_route_that_the_kernel_learned_is_left_to_it_and_named(agent: Agent, node: Namespace) -> None:
    """A changed one would not be withdrawn any more when its router says so."""
    chain = Chain(node, "podnet", "1.0.0", [agent.entry])
    with pod() as here, pod("router") as there:
        ip(here, "link", "add", IFNAME, "type", "veth", "peer", "name", "w0", "netns", there.name)
        sysctl.write(here, f"net.ipv6.conf.{IFNAME}.accept_ra", "2")
        for name, end in ((IFNAME, here), ("w0", there)):
            ip(end, "link", "set", name, "up")
        ip(here, "addr", "add", "198.19.7.2/24", "dev", IFNAME)
        ip(here, "route", "add", "default", "via", "198.19.7.1")

        def learned() -> bool:
            with contextlib.suppress(OSError):  # the link has no address yet
                advertise(there, "w0", 600)
            return "proto ra" in ip(here, "-6", "route", "show", "default")

        assert eventually(learned)
        before = routing(here)
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        assert without_quickack(routing(here)) == before
        assert [line.split()[1] for line in quick(here)] == ["198.19.7.0/24", "default"]
        (note,) = agent.served[-1].notes
        assert "left out: the IPv6 route ::/0" in note
        assert agent.served[-1].problems == ()
        chain.check(here, ASKS)
        chain.delete(here)
        assert routing(here) == before


def test_annotations(agent: Agent, node: Namespace) -> None:
    annotations = {
        "ackward.io/quickack": "10.0.0.0/8,fd00::/8",
        "ackward.io/initcwnd": "40",
        "ackward.io/nodelay": "8080,9000-9100",
        "ackward.io/bypass": "not on Sundays",
        "ackward.io/surprise": "x",
    }
    chain = Chain(node, "podnet", "1.0.0", [agent.entry])
    with bpf_file_system(), wired_pod() as here:
        before = routing(here)
        chain.add(here, annotations, {"cniVersion": "1.0.0"})
        served = agent.served[-1]
        assert (served.problems, len(served.complaints)) == ((), 2)
        lines = [line for name in ("routes-4", "routes-6") for line in routing(here)[name]]
        assert len([line for line in lines if "10.0.0.0/8" in line and "quickack 1" in line]) == 1
        assert len([line for line in lines if "fd00::/8" in line and "quickack 1" in line]) == 1
        assert len([line for line in lines if "default" in line and "initcwnd 40" in line]) == 2
        hooks = [one for one in served.changed if "each new connection TCP_NODELAY" in one]
        assert len(hooks) == 2
        chain.check(here, annotations)
        ip(here, "route", "delete", "10.0.0.0/8")
        with pytest.raises(PluginFailed, match=r"10\.0\.0\.0/8.*is gone"):
            chain.check(here, annotations)
        chain.delete(here)
        assert routing(here) == before


NODELAY = """
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
print(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
"""


def test_nodelay_is_set_on_the_pods_own_cgroup(agent: Agent, node: Namespace) -> None:
    """As the kubelet names it: a hook on the root would be run for every connection of the node."""
    chain = Chain(node, "podnet", "1.0.0", [agent.entry])
    with bpf_file_system(), wired_pod() as here:
        place = cgroup2_mount() / f"kubepods/burstable/podu-{here.name}"
        place.mkdir(parents=True)
        try:
            chain.add(here, {"ackward.io/nodelay": "yes"}, {"cniVersion": "1.0.0"})
            assert f"of cgroup /kubepods/burstable/podu-{here.name}" in agent.served[-1].changed[0]
            seen = {}
            for name, cgroup in (("own", place), ("beside", place.parent)):
                argv = command_inside(here, [sys.executable, "-c", NODELAY, str(cgroup)])
                seen[name] = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
            assert seen == {"own": "1", "beside": "0"}
            chain.check(here, {"ackward.io/nodelay": "yes"})
            chain.delete(here)
        finally:
            place.rmdir()
            for parent in (place.parent, place.parent.parent):
                with contextlib.suppress(OSError):  # others may be at work in it
                    parent.rmdir()


@pytest.mark.parametrize("way", ["process", "bind mount"])
def test_a_namespace_by_any_path(way: str, agent: Agent, tmp_path: Path) -> None:
    with wired_pod() as here:
        sleeper = subprocess.Popen(["nsenter", f"--net={here.path}", "sleep", "60"])
        place = tmp_path / "elsewhere"
        place.touch()
        subprocess.run(["mount", "--bind", str(here.path), str(place)], check=True)
        try:
            if way == "process":  # nsenter becomes sleep in the namespace
                wait = subprocess.run(
                    [
                        "sh",
                        "-c",
                        f"until [ $(stat -Lc %i /proc/{sleeper.pid}/ns/net) = {here.inode} ]; do :; done",
                    ],
                    timeout=10,
                    check=True,
                )
                assert wait.returncode == 0
            path = f"/proc/{sleeper.pid}/ns/net" if way == "process" else str(place)
            assert run("ADD", configuration(agent.socket, ASKS), netns=path).code == 0
            assert len(quick(here)) == 4
            assert run("CHECK", configuration(agent.socket, ASKS), netns=path).code == 0
            assert run("DEL", configuration(agent.socket, ASKS), netns=path).code == 0
            assert quick(here) == []
        finally:
            subprocess.run(["umount", str(place)], check=True)
            sleeper.kill()
            sleeper.wait()


def collected(agent: Agent, network: str, kept: list[Namespace]) -> None:
    """A GC of the network; its list of what is valid names the pods that are kept."""
    listed = [{"containerID": container_of(here), "ifname": IFNAME} for here in kept]
    more = {"name": network, "cniVersion": "1.1.0", "prevResult": ..., VALID_ATTACHMENTS: listed}
    done = run("GC", configuration(agent.socket, **more), container="", netns="", ifname="")
    assert (done.code, done.out) == (0, b"")


def test_gc_takes_what_is_not_listed_of_its_own_network(agent: Agent, node: Namespace) -> None:
    one_net = Chain(node, "podnet", "1.1.0", [agent.entry])
    other_net = Chain(node, "othernet", "1.1.0", [agent.entry])
    with wired_pod(label="kept") as kept, wired_pod(label="other") as other, wired_pod(label="gone") as gone:
        for chain, here in ((one_net, kept), (one_net, gone), (other_net, other)):
            chain.add(here, ASKS, {"cniVersion": "1.1.0"})
        collected(agent, "podnet", kept=[kept])
        assert {one.container_id for one in agent.pods.all()} == {container_of(kept), container_of(other)}
        assert quick(gone) == []
        assert (len(quick(kept)), len(quick(other))) == (4, 4)
        one_net.delete(kept)
    # A namespace that went without DEL leaves nothing behind but its record, until somebody looks.
    assert [one.container_id for one in agent.pods.sweep()] == [container_of(other)]


def test_status(agent: Agent) -> None:
    asked = configuration(agent.socket, cniVersion="1.1.0", failurePolicy="closed", prevResult=...)
    assert (run("STATUS", asked).code, run("STATUS", asked).out) == (0, b"")
