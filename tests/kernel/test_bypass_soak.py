"""Much traffic over the bypass: no byte lost or out of place, and nothing left when it is over.

The full sizes of issue 7, 20 GB and 50,000 connections, are the defaults; ACKWARD_SOAK_GB and ACKWARD_SOAK_CONNECTIONS change
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.bypass_load import compiled, serving
from tests.polling import eventually
from tests.steady import FINAL

from ackward.lab.topology import DEVICE, TwoHosts, run_on
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.selftest.ways import Joined

pytestmark = FINAL

GIGABYTES = float(os.environ.get("ACKWARD_SOAK_GB", "20"))
CONNECTIONS = int(os.environ.get("ACKWARD_SOAK_CONNECTIONS", "50000"))
AT_A_TIME = 500
#: Bytes that the kernel's own caches may have grown by; a leak of one small object a connection would be more.
SLACK = 24 << 20


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Path:
    """The load program."""
    return compiled(tmp_path_factory.mktemp("load"))


@pytest.fixture
def joined(hosts) -> Iterator[tuple[TwoHosts, Engine]]:
    """Two hosts whose connections the bypass joins."""
    with Joined.attached(hosts.server) as way:
        yield hosts, way.engine


def slab_bytes() -> int:
    """Kernel objects that cannot be reclaimed (psocks, messages, storages), and per-CPU memory."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) << 10 for name in ("SUnreclaim", "Percpu"))


def members(engine: Engine) -> int:
    return engine.survey().ends


def test_twenty_gigabytes_both_ways_at_random_speeds(joined, load):
    """Between two hosts, IPv4 and IPv6, writes and reads of 1 B to 256 kB, pauses at either end.

    The IPv6 half in segments of one packet.
    """
    hosts, engine = joined
    with serving(hosts.server, load, 8) as server:
        for family in (4, 6):
            if family == 6:
                for host in (hosts.client, hosts.server):
                    run_on(host, "ethtool", "-K", DEVICE, "tso", "off", "gso", "off", "gro", "off")
            done = server.client(
                hosts.client,
                "transfer",
                hosts.server_address(family),
                *(2, int(GIGABYTES * 1e9 / 8), family),
                limit=300,
            )
            assert done.numbers[0] == pytest.approx(GIGABYTES * 1e9 / 2, abs=8)
    counters = engine.counters()
    # What was written while a reader rested, and until that was read, went over TCP: some half of all.
    assert counters.redirected_bytes > GIGABYTES * 1e9 / 10
    assert eventually(lambda: members(engine) == 0)


def test_fifty_thousand_connections_leave_nothing(hosts, load):
    """500 at a time; afterwards no member, no map entry, no descriptor, no memory is left."""
    with Joined.attached(hosts.server) as way, serving(hosts.server, load, AT_A_TIME + 12) as server:
        engine = way.engine

        def churn(count: int, seed: int) -> None:
            server.client(hosts.server, "churn", "127.0.0.1", count, AT_A_TIME, seed, limit=300)
            assert eventually(lambda: members(engine) == 0)
            # The last member is counted a moment after it went.
            assert eventually(lambda: engine.counters().left == engine.counters().joined)

        churn(CONNECTIONS // 10, 1)  # caches fill
        descriptors, slab = _descriptors(server.server.pid), slab_bytes()
        before = engine.counters()
        churn(CONNECTIONS, 2)
        after = engine.counters()
        # Each connection has two ends; those that the table had no room for would be counted by name.
        assert after.joined - before.joined == 2 * CONNECTIONS
        assert after.left - before.left == 2 * CONNECTIONS
        assert eventually(lambda: _descriptors(server.server.pid) == descriptors)
        # What is freed by RCU and by workers needs a moment.
        assert eventually(lambda: slab_bytes() - slab < SLACK), (
            f"{(slab_bytes() - slab) >> 20} MiB more than before"
        )
        assert engine.survey() == (0, 0, 0, 0, 0)


def _descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))
