"""Many connections with half-closes and resets through every mode: no byte lost, none added, nothing left.

``ACKWARD_SOAK_CONNECTIONS``, ``ACKWARD_SOAK_AT_ONCE`` and ``ACKWARD_SOAK_BYTES``, each for every mode, make it as large
as one likes; docs/gateway.md has the largest and how long it takes. The step ``window`` changes routes, of which a
loopback has none: there the exit and the server are on a host of their own.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.kernel.gateway_hosts import ENTRY, SERVER, gateways
from tests.kernel.gateway_wires import alive, bpf_objects, routing
from tests.kernel.lab_hosts import program
from tests.polling import eventually
from tests.steady import FINAL

from ackward.lab.topology import CLIENT, two_hosts

pytestmark = FINAL

CONNECTIONS = int(os.environ.get("ACKWARD_SOAK_CONNECTIONS", "4000"))
AT_ONCE = int(os.environ.get("ACKWARD_SOAK_AT_ONCE", "2000"))
BYTES = int(os.environ.get("ACKWARD_SOAK_BYTES", str(50_000_000)))
SECONDS = 30 + CONNECTIONS / 100 + BYTES / 20e6

MODES = {
    "split": ("early = false\npool = false\nwindow = false", "optimistic"),
    "early": ("early = true\npool = false\nwindow = false", "optimistic"),
    "pool": ("early = true\npool = true\nwindow = false", "optimistic"),
    "window": ("early = true\npool = true\nwindow = true", "optimistic"),
    "copy": ("early = true\npool = true\nwindow = false\nsplice = false", "optimistic"),
    "faithful": ("early = true\npool = true\nwindow = false", "faithful"),
}


def descriptors(made):
    """How many descriptors each process of the gateways has, without those of the pool's idle legs and idle pipes."""
    found = {}
    for place, process in made.processes.items():
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        idle = made.counter("entry", "legs_idle") + 2 * made.counter(place, "pipes")
        for number, each in enumerate([process.pid, *children]):
            found[place, each] = len(list(Path(f"/proc/{each}/fd").iterdir())) - (idle if number else 0)
    return found


def nothing_grew(before, after):
    """A leg or two may be in the making at either moment."""
    return all(count <= before[process] + 6 for process, count in after.items())


@contextmanager
def placed(mode):
    """Both gateways, to be started, and the host of the exit and the server."""
    if mode != "window":
        with gateways() as made:
            yield made, made.host
        return
    with two_hosts() as hosts, gateways(hosts.client) as made:
        made.hosts["exit"] = hosts.server
        made.legs_at, made.legs_from = hosts.addresses[4], f"{CLIENT[4]}/32"
        yield made, hosts.server


@pytest.mark.parametrize("mode", MODES)
def test_no_byte_is_lost_and_nothing_is_left(mode):
    steps, answer = MODES[mode]
    load = [sys.executable, "-m", "tests.kernel.gateway_load"]
    with placed(mode) as (made, far), program(far, [*load, "serve", str(SERVER)]) as server:
        assert server.stdout.readline() == "ready\n"
        surroundings = [routing(host) for host in (made.host, far)]
        made.write("exit", steps=steps)
        made.write("entry", steps=steps, answer=answer)
        made.start("exit", "entry")
        if mode == "window":
            assert all("initcwnd" in routing(host)["routes"] for host in (made.host, far))
        before = descriptors(made)
        objects = bpf_objects(process for _, process in before)
        client = [*load, "ask", str(ENTRY), str(CONNECTIONS), str(AT_ONCE), str(BYTES)]
        with program(made.host, client) as process:
            output, complaint = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, complaint
        result = json.loads(output)
        assert result["wrong"] == [], result
        assert result["whole"] + result["reset"] + result["half"] == CONNECTIONS
        assert result["reset"], "something must be reset"
        assert result["carried"] >= BYTES
        for place in ("entry", "exit"):
            assert eventually(lambda place=place: made.counter(place, "connections") == 0, within=15), (
                f"{place} has ended all"
            )
        assert eventually(lambda: nothing_grew(before, descriptors(made)), within=15), (
            f"no descriptor is left: {before}"
        )
        server.terminate()
        complaints, _ = server.communicate(timeout=10)
        assert complaints == ""
        for place in ("entry", "exit"):
            if mode == "copy":
                assert made.counter(place, "pipes") == 0
            made.kill(place, 15)
            assert made.processes[place].returncode == 0, made.complaints(place)
            assert "Traceback" not in made.complaints(place)
        assert [routing(host) for host in (made.host, far)] == surroundings
        assert eventually(lambda: not alive(objects)), "no BPF object is left"
