"""Set-up over two gateways with a warm pool, and over two HAProxies, 20 ms apart: where a pool is meant to be.

The client and the first proxy are on one host, the second proxy and the server on another; between them is the lab's
long link. ``benchmarks.gateway setup`` has the same without a distance. Needs root, and what the lab needs.

    python -m benchmarks.gateway_distance [--repetitions 3]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from ackward.kernel.namespaces import Namespace
from ackward.lab.topology import two_hosts
from ackward.lab.wan import Wan
from benchmarks import gateway_proxies as proxies
from benchmarks.gateway import ECHO, Figures, choose_congestion, load, run, setup, told
from benchmarks.gateway_proxies import Far, Proxy

#: Milliseconds each way.
DELAY = 10.0


def distant(host: Namespace, proxy: Proxy) -> Figures:
    """From connect() to the first answer over two proxies 20 ms apart, two at once."""
    return setup(host, proxy, count=1500, at_once=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--congestion", default="reno")
    options = parser.parse_args()
    with (
        two_hosts(Wan.of(DELAY)) as hosts,
        tempfile.TemporaryDirectory(prefix="ackward-bench-") as directory,
    ):
        for host in (hosts.client, hosts.server):
            choose_congestion(host, options.congestion)
        far = Far(hosts.server, hosts.server_address(4))
        pairs = {name: partial(pair, far=far) for name, pair in proxies.PAIRS.items()}
        with load(hosts.server, "echo", ECHO) as echo:
            assert told(echo) == "ready\n"
            run("distance", (distant, pairs, ECHO), hosts.client, Path(directory), options.repetitions)


if __name__ == "__main__":
    main()
