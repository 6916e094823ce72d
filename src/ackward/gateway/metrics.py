"""The gateway's numbers for Prometheus, read from the workers' shared memory when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ackward.errors import UsageError
from ackward.gateway.config import Endpoint
from ackward.gateway.counters import GAUGES, Count, Counters
from ackward.gateway.settings import End

#: Every count but the ends, with what it says.
_HELP = {
    Count.ACCEPTED: "clients accepted",
    Count.CONNECTIONS: "connections that are open",
    Count.TO_SERVER: "payload bytes to servers, of connections that have ended",
    Count.TO_CLIENT: "payload bytes to clients, of connections that have ended",
    Count.EARLY_BEGUN: "connections begun by a SYN",
    Count.EARLY_CLAIMED: "connections begun by a SYN whose client was then accepted",
    Count.EARLY_REFUSED: "SYNs beyond the limits, served without being early",
    Count.EARLY_PENDING: "connections begun by a SYN whose client is not there yet",
    Count.HELD_SYNS: "SYNs that are held until their server has answered",
    Count.LEGS_BEGUN: "legs that were begun",
    Count.LEGS_READY: "legs that became ready",
    Count.LEGS_FAILED: "legs that did not become ready",
    Count.LEGS_IDLE: "legs that wait in the pool",
    Count.LEGS_USED: "legs that carried a connection",
    Count.POOL_EMPTY: "times that a leg was wanted and the pool had none",
    Count.LEGS_ACCEPTED: "legs that other gateways connected",
    Count.LEGS_REJECTED: "legs whose peer did not prove itself, or from elsewhere than exit.networks",
    Count.HANDSHAKES_DROPPED: "legs beyond the limit of unproved ones",
    Count.PIPES: "pipes that are open",
    Count.PIPES_NOT_EMPTY: "pipes that came back with bytes in them and were closed",
    Count.BUSY: "clients that were reset for want of room",
    Count.WORKERS_LOST: "worker processes that ended without being told to",
    Count.STUCK: "connections whose long segments were sent again and again and not acknowledged",
    Count.WENT_ON_IN_FRAGMENTS: "... which went on when routers were allowed to fragment: MTU black holes, most likely",
}


class GatewayCollector(Collector):
    """What Prometheus is told: ``ackward_gateway_*``."""

    def __init__(self, counters: Counters, draining: Callable[[], bool]) -> None:
        self._counters, self._draining = counters, draining

    def collect(self) -> Iterator[Metric]:
        """All numbers, as they are now."""
        for count in Count:
            if count == Count.FIRST_END:
                continue
            name = f"ackward_gateway_{count.name.lower()}"
            words = _HELP.get(count, count.name.lower().replace("_", " "))
            total = self._counters.total(count)
            kind = GaugeMetricFamily if count in GAUGES else CounterMetricFamily
            yield kind(name, words, value=total)
        ends = CounterMetricFamily(
            "ackward_gateway_ended", "connections that have ended, by how", labels=["how"]
        )
        for end in End:
            ends.add_metric([str(end)], self._counters.ended(end))
        yield ends
        yield GaugeMetricFamily(
            "ackward_gateway_draining", "1 while it takes no new connections", value=int(self._draining())
        )


def serve(where: Endpoint, collector: GatewayCollector) -> tuple[WSGIServer, Thread]:
    """Answer Prometheus in a thread; raises :class:`UsageError` if the port is in use."""
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server: tuple[Any, Thread] = start_http_server(where.port, where.host, registry)
    except OSError as error:
        raise UsageError(
            f"metrics.address {where}: {error.strerror or error}",
            consequence="the gateway was not started",
            next_step="choose another address, or leave [metrics] out",
        ) from error
    return server
