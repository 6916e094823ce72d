"""A running trace, and a load for it to tell of."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.lab_hosts import ACKWARD

from ackward.kernel.namespaces import call_inside
from ackward.lab import run as lab
from ackward.model.trace import TraceLine


class Trace:
    """A running `ackward trace --json`; :meth:`end` is Ctrl-C, and gives the events of some namespaces."""

    def __init__(self, process):
        self.process = process

    def end(self, *namespaces):
        self.process.send_signal(signal.SIGINT)
        output, complaint = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, complaint
        for line in output.splitlines():
            TraceLine.model_validate_json(line)
        inodes = {namespace.inode for namespace in namespaces}
        return [event for event in map(json.loads, output.splitlines()) if event.get("netns") in inodes]


@contextmanager
def tracing(*arguments):
    process = subprocess.Popen(
        [ACKWARD, "trace", "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr.readline() == "Tracing.\n"
        yield Trace(process)
    finally:
        process.kill()
        process.communicate()


def run_load(hosts, shape):
    process = lab.peer(hosts.client, "load", hosts.server_address(4), shape)
    try:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    finally:
        process.kill()
        process.communicate()


def traced(hosts, shape, *arguments):
    with lab.server(hosts, shape), tracing("--port", str(shape.port), *arguments) as trace:
        run_load(hosts, shape)
        return trace.end(hosts.client, hosts.server)


def of(events, kind, **fields):
    return [
        event
        for event in events
        if event["event"] == kind and all(event[name] == value for name, value in fields.items())
    ]


def counter(host, name):
    """One of the namespace's own TcpExt counters (/proc/net/netstat)."""
    text = call_inside(host, Path("/proc/thread-self/net/netstat").read_text)
    names, values = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
    return int(values[names.index(name)])


#: A client that asks one byte at a time.
ASKING = """
import socket
print('ready', flush=True)
c = socket.create_connection(('{address}', 7000))
for _ in range({rounds}):
    c.sendall(b'q'); assert c.recv(1)
c.close()
"""
