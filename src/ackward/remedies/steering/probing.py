"""Whether this kernel lets a hook set an option: tried on a connection of our own over loopback, and undone at once."""

from __future__ import annotations

import socket

from ackward.errors import Unavailable
from ackward.kernel.descriptors import read_option
from ackward.kernel.namespaces import current
from ackward.kernel.probes import cgroup2_mount
from ackward.model.changes import SocketOption
from ackward.model.scopes import SocketScope
from ackward.remedies.steering.hook import attach, loaded
from ackward.remedies.steering.record import COUNTERS_SIZE, NUMBERS, Counters, Record, wanted
from ackward.remedies.transaction import identify


def require(option: SocketOption) -> None:
    """Raise :class:`Unavailable` unless a hook sets the option on a connection as it is established.

    The verifier takes any option number: only the running program learns whether the kernel knows it.
    """
    cookie = identify(current()).cookie
    if cookie is None:
        raise Unavailable(
            "this kernel gives network namespaces no cookie (SO_NETNS_COOKIE, Linux 5.14)",
            consequence="connections of one namespace cannot be told from another's; nothing was changed",
            next_step="let the program set the option itself",
        )
    with _listener() as listener:
        port = int(listener.getsockname()[1])
        record = Record.of(cookie, SocketScope(ports=(port, port)), option)
        with loaded(record) as programs, attach(programs, "established", cgroup2_mount()):
            with _connected(listener) as client:
                numbers = NUMBERS[option.name]
                value = read_option(client.fileno(), numbers.level, numbers.in_user_space)
            counters = Counters.parse(programs.map("counters_map").get(bytes(4)) or bytes(COUNTERS_SIZE))
    # Both ends meet the hook; the accepting one may do so after connect() has returned.
    if not counters.seen:
        raise Unavailable(
            "a hook in the root cgroup does not see this process's connections (sock_ops)",
            consequence="new connections could not be set; nothing was changed",
            next_step="run this outside the container, where the whole cgroup v2 hierarchy is mounted",
        )
    if value is None or wanted(option, value) != value:
        raise Unavailable(
            f"this kernel does not let a hook set {option.name} (bpf_setsockopt in sock_ops; TCP_NODELAY needs 6.1)",
            consequence="new connections could not be set; nothing was changed",
            next_step="let the program set the option itself",
        )


def _listener() -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", 0))
    except OSError as error:
        raise _no_loopback(error) from error


def _connected(listener: socket.socket) -> socket.socket:
    try:
        return socket.create_connection(listener.getsockname()[:2], timeout=2)
    except OSError as error:
        raise _no_loopback(error) from error


def _no_loopback(error: OSError) -> Unavailable:
    return Unavailable(
        f"whether the kernel lets a hook set options cannot be tried over loopback ({error})",
        consequence="nothing was changed",
        next_step="ip link set lo up",
    )
