"""What the tests of the bypass share: an engine in a namespace of its own, and connections there."""

from __future__ import annotations

import array
import ctypes
import fcntl
import hashlib
import json
import random
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.kernel.libbpf import library
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import Engine, attached
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.transaction import identify

#: Seconds after which a dialogue counts as one that hangs.
HANGS = 20.0

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def engine(host: Namespace, scope: BypassScope | None = None, **bounds: int) -> Iterator[Engine]:
    """An engine for the connections with an end in ``host``."""
    scope = scope or BypassScope(joins="all")
    with attached(Rules(scope, netns=identify(host).cookie or 0, **bounds)) as made:
        yield made


def listener(host: Namespace, address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket in ``host``."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(512)
        made.settimeout(HANGS)
        return made

    return call_inside(host, listen)


def connect(host: Namespace, address: str, port: int) -> socket.socket:
    """A connection from ``host``."""
    return call_inside(host, socket.create_connection, (address, port), HANGS)


def pair(host: Namespace, address: str = "127.0.0.1", to: str | None = None) -> Pair:
    """Both ends of a new connection over loopback: who connected, who accepted."""
    with listener(host, address) as listening:
        client = connect(host, to or address, listening.getsockname()[1])
        server, _ = listening.accept()
    server.settimeout(HANGS)
    return client, server


def close(*sockets: socket.socket) -> None:
    """All of them."""
    for one in sockets:
        one.close()


def readable(connection: socket.socket) -> int:
    """FIONREAD: how many bytes can be read at once."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def map_ids(of: Engine) -> set[int]:
    """The kernel's numbers of its maps. The programs that members run hold them."""
    infos = [Path(f"/proc/self/fdinfo/{of._parts[name].fd}").read_text() for name in ("members", "ends")]
    return {int(line.split()[1]) for info in infos for line in info.splitlines() if line.startswith("map_id")}


def in_kernel(ids: set[int]) -> set[int]:
    """Which of those maps are there still."""
    listed = subprocess.run(["bpftool", "-j", "map", "list"], capture_output=True, text=True, check=True)
    return ids & {entry["id"] for entry in json.loads(listed.stdout)}


def entries(of: Engine, name: str) -> int:
    """How many entries one of its maps has."""
    table, key, following = of._parts[name].fd, None, ctypes.create_string_buffer(8)
    count = 0
    while library().bpf_map_get_next_key(table, key, following) == 0:
        key = ctypes.create_string_buffer(following.raw, 8)
        count += 1
    return count


def tell(writer: socket.socket, count: int | threading.Event, seed: int) -> bytes:
    """Write in pieces of random sizes; gives the hash of what was written.

    ``count``: so many bytes, or until that happens.
    """
    chance, digest = random.Random(seed), hashlib.blake2b()
    while not count.is_set() if isinstance(count, threading.Event) else count > 0:
        size = chance.choice((1, 7, 100, 1000, 5000, 60_000))
        if isinstance(count, int):
            size = min(count, size)
            count -= size
        piece = chance.randbytes(size)
        digest.update(piece)
        writer.sendall(piece)
    return digest.digest()


def talk(writer: socket.socket, count: int | threading.Event, seed: int) -> bytes:
    """The same, then shut down."""
    hashed = tell(writer, count, seed)
    writer.shutdown(socket.SHUT_WR)
    return hashed


def listen_to(reader: socket.socket, seed: int, count: int | None = None) -> bytes:
    """Read so much, or to the end, in pieces of random sizes; gives the hash of what was read."""
    chance, digest, left = random.Random(seed), hashlib.blake2b(), count
    while left is None or left > 0:
        size = chance.choice((1, 64, 3000, 65_536, 200_000))
        piece = reader.recv(size if left is None else min(size, left))
        if not piece:
            break
        digest.update(piece)
        left = None if left is None else left - len(piece)
    return digest.digest()


def both_ways(ends: Pair, count: int | threading.Event, seed: int) -> list[bytes]:
    """So much (:func:`talk`) each way at once; the four hashes: written and read, there and back."""
    client, server = ends
    return _at_once(
        lambda: talk(client, count, seed),
        lambda: listen_to(server, seed + 1),
        lambda: talk(server, count, seed + 2),
        lambda: listen_to(client, seed + 3),
    )


def both_ways_then_leave(ends: Pair, count: int, seed: int) -> list[bytes]:
    """The same, but no end shuts down before both have read all."""
    client, server = ends
    hashes = _at_once(
        lambda: tell(client, count, seed),
        lambda: listen_to(server, seed + 1, count),
        lambda: tell(server, count, seed + 2),
        lambda: listen_to(client, seed + 3, count),
    )
    for end in ends:
        end.shutdown(socket.SHUT_WR)
    assert [end.recv(1) for end in ends] == [b"", b""], "more came than was sent"
    return hashes


def _at_once(*jobs: Callable[[], bytes]) -> list[bytes]:
    hashes = [b""] * len(jobs)

    def run(index: int) -> None:
        hashes[index] = jobs[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * HANGS)
    return hashes
