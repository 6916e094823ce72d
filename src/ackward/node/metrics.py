"""What the agent counts, for Prometheus. docs/kubernetes.md lists the names; a test compares.

A registry of our own: nothing of another library in this process shows up in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from ackward.node.cni import Command
from ackward.node.cni_commands import Served
from ackward.node.standing import Standing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COMMANDS = frozenset(Command)
#: How running pods come to be repaired.
_WAYS = {
    "missed": "their ADD was not answered",
    "lost": "somebody took it away",
    "running": "there before the plugin",
    "withdrawn": "asked for no more, and taken back",
}
#: Seconds. A request takes about a millisecond; a runtime waits for seconds at most.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """All of them. The names say what they are; labels have few values, and none that a pod may choose."""

    def __init__(self) -> None:
        # One more series for each counter, of no use to an alert.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._problems_standing, self._complaints_standing = Standing(), Standing()
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ackward_node_requests",
            "CNI requests answered, by command and CNI error code (0: none)",
            ["command", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "ackward_node_request_seconds",
            "Time to answer a CNI request",
            ["command"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.changes = Counter("ackward_node_changes", "Changes made to pods' namespaces", registry=registry)
        self.problems = Counter(
            "ackward_node_problems", "What pods asked for and could not get", registry=registry
        )
        self.complaints = Counter(
            "ackward_node_annotation_complaints",
            "Annotations of pods that make no sense",
            registry=registry,
        )
        self.troubles = Counter(
            "ackward_node_client_troubles", "Clients of the socket that made no sense", registry=registry
        )
        self.repaired = Counter(
            "ackward_node_repaired",
            "Running pods that got what they lacked: by way "
            f"({'; '.join(f'{way}: {what}' for way, what in _WAYS.items())})",
            ["way"],
            registry=registry,
        )
        for way in _WAYS:  # a series that begins with its first event has no growth to alert on
            self.repaired.labels(way)
        self.rewrites = Counter(
            "ackward_node_list_rewrites",
            "Times that the entry was put into, or taken out of, the CNI list",
            registry=registry,
        )
        self.pods = Gauge("ackward_node_pods", "Pods on record", registry=registry)
        self.missed = Gauge(
            "ackward_node_missed", "ADDs that nobody answered and that wait for repair", registry=registry
        )
        self.entry = Gauge(
            "ackward_node_entry_in_place", "1 while the CNI list has our entry", registry=registry
        )
        self.answering = Gauge(
            "ackward_node_answering", "1 while the agent's socket answers", registry=registry
        )
        self.marker = Gauge("ackward_node_marker", "1 while the marker file is there", registry=registry)
        self.watching = Gauge(
            "ackward_node_watching",
            "1 while the API server's pods are followed (--no-cni)",
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def count(self, served: Served) -> None:
        """Count one request."""
        command = served.command if served.command in _COMMANDS else "other"
        self.requests.labels(command, str(served.code)).inc()
        self.seconds.labels(command).observe(served.seconds)
        self.changes.inc(len(served.changed))
        if served.command == Command.ADD:
            self.refused(served.container_id, served.ifname, served.problems)
            self.complained(served.container_id, served.ifname, served.complaints)
        else:
            self.problems.inc(len(served.problems))

    def refused(self, container_id: str, ifname: str, problems: Iterable[str]) -> tuple[str, ...]:
        """Count what a pod could not get, each problem once until it changes; gives those that are new."""
        news = self._problems_standing.news(container_id, ifname, problems)
        self.problems.inc(len(news))
        return news

    def complained(self, container_id: str, ifname: str, complaints: Iterable[str]) -> tuple[str, ...]:
        """Count a pod's annotations that make no sense, each once until it changes; gives those that are new."""
        news = self._complaints_standing.news(container_id, ifname, complaints)
        self.complaints.inc(len(news))
        return news

    def count_pods(self, count: Callable[[], int]) -> None:
        """Ask for the number of pods on record whenever somebody reads it."""
        self.pods.set_function(count)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
