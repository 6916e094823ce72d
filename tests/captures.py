"""Captures that tcpdump and dumpcap made of real traffic, kept in tests/data/captures for tests that need no root.

Tags of VLANs are not among them: the kernel they were made on has no such devices.

`python tests/captures.py` makes them again (needs root, tcpdump and tshark).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.kernel.namespaces import call_inside, command_inside
from ackward.lab.topology import TwoHosts, run_on, two_hosts

DIRECTORY = Path(__file__).parent / "data" / "captures"
PORT = 7000
#: name -> (program and its options, address that the client calls)
RECIPES = {
    "plain.pcap": ("tcpdump -U --immediate-mode -i lab0 -s 100", "198.18.0.2"),
    "nanoseconds.pcap": ("tcpdump -U --immediate-mode -i lab0 -s 100 --nano", "fdac:77ad::2"),
    "cooked.pcap": ("tcpdump -U --immediate-mode -i any -s 100 -y LINUX_SLL", "198.18.0.2"),
    "cooked2.pcap": ("tcpdump -U --immediate-mode -i any -s 110 -y LINUX_SLL2", "fdac:77ad::2"),
    "vxlan.pcapng": ("dumpcap -q -i lab0 -s 160", "198.19.42.2"),
    "interfaces.pcapng": ("dumpcap -q -s 160 -i lab0 -i any -i vx42", "198.19.42.2"),
}


def names() -> list[Path]:
    """Every capture there is."""
    return sorted(DIRECTORY.iterdir())


def _serve(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        for size in (100, 20_000):
            connection.recv(4096)
            connection.sendall(b"a" * size)


def _talk(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as connection:
        connection.connect((address, PORT))
        for size in (100, 20_000):
            connection.sendall(b"q" * 200)
            while size > 0:
                size -= len(connection.recv(size))


def _listen(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, PORT))
    listener.listen()
    return listener


@contextmanager
def _capturing(hosts: TwoHosts, argv: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command_inside(hosts.client, argv), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on" in line or "File:" in line:
                break
        yield
        time.sleep(0.5)  # the capturing program says nothing about what it has yet to write
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def _add_devices(hosts: TwoHosts) -> None:
    for host, number in ((hosts.client, 1), (hosts.server, 2)):
        other = hosts.server_address(4) if number == 1 else hosts.client_address(4)
        for line in (
            f"ip link add vx42 type vxlan id 42 remote {other} dstport 4789 dev lab0",
            "ip link set vx42 up",
            f"ip address add 198.19.42.{number}/24 dev vx42",
        ):
            run_on(host, *line.split())


def main() -> int:
    DIRECTORY.mkdir(exist_ok=True)
    with two_hosts() as hosts, tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o777)  # both programs give up their privileges before they write
        _add_devices(hosts)
        for name, (program, address) in RECIPES.items():
            target = Path(directory) / name
            listener = call_inside(hosts.server, _listen, address)
            with listener, _capturing(hosts, [*program.split(), "-w", str(target)]):
                serving = os.fork()
                if serving == 0:
                    _serve(listener)
                    os._exit(0)
                call_inside(hosts.client, _talk, address)
                os.waitpid(serving, 0)
            (DIRECTORY / name).write_bytes(target.read_bytes())
            print(f"{name}: {target.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
