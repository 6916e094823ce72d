"""Settings of the kernel that decide how long TCP waits, read per network namespace, and nothing changed.

What a kernel has as a constant rather than a setting is measured: the timer's tick, and the number of answers
after which a socket counts as interactive and delays its ACKs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ackward.errors import AckwardError
from ackward.kernel.namespaces import Namespace, call_inside, in_sight

DIRECTORY = Path("/proc/sys/net/ipv4")
SYSCTLS = (
    "tcp_pingpong_thresh",
    "tcp_autocorking",
    "tcp_early_retrans",
    "tcp_slow_start_after_idle",
    "tcp_congestion_control",
    "tcp_rto_min_us",
    "tcp_timestamps",
    "tcp_sack",
)
CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h; it moves once a tick of the timer
#: Kernels had thresholds of 3 and 1; a socket that needs more answers than this has another reason.
_MOST_ANSWERS = 5

#: Keys of `ip -j route` and the words that `ip route` takes for them, in the order that it prints them.
_ROUTE_WORDS = {
    "gateway": "via",
    "dev": "dev",
    "table": "table",
    "protocol": "proto",
    "scope": "scope",
    "prefsrc": "src",
    "metric": "metric",
    "pref": "pref",
}


@dataclass(frozen=True)
class Route:
    """A unicast route of a table other than ``local``.

    Windows are in segments, None if the route does not set them. ``command`` is an ``ip route replace`` that
    restates the whole route but for ``initcwnd`` and ``initrwnd``, since ip drops what is not restated; None
    if the route has something that cannot be restated (several next hops, a lock).
    """

    family: int
    destination: str
    table: str
    quickack: bool
    initcwnd: int | None = None
    initrwnd: int | None = None
    command: tuple[str, ...] | None = None


@dataclass(frozen=True)
class HostFacts:
    """What all namespaces share. ``pingpong_threshold`` is measured; None if it is a setting or unknown."""

    hz: int | None
    pingpong_threshold: int | None


@dataclass(frozen=True)
class NamespaceFacts:
    """The settings of one namespace or of several alike; ``routes`` is None if they could not be read."""

    namespaces: tuple[Namespace, ...]
    sysctls: Mapping[str, str]
    routes: tuple[Route, ...] | None


def parse_routes(family: int, document: str) -> tuple[Route, ...]:
    """The unicast routes in the output of ``ip -j route show table all``."""
    rows: list[dict[str, Any]] = json.loads(document or "[]")
    return tuple(
        _route(family, row)
        for row in rows
        if row.get("type", "unicast") == "unicast" and row.get("table", "main") != "local"
    )


def _route(family: int, row: Mapping[str, Any]) -> Route:
    metrics: dict[str, Any] = {key: value for part in row.get("metrics", []) for key, value in part.items()}
    window = {key: metrics.pop(key, None) for key in ("initcwnd", "initrwnd")}
    command = ["ip", f"-{family}", "route", "replace", str(row["dst"])]
    for key, word in _ROUTE_WORDS.items():
        if key in row:
            command += [word, str(row[key])]
    command += [str(word) for metric in metrics.items() for word in metric]
    known = {"dst", "type", "flags", "metrics", *_ROUTE_WORDS}
    restated = (
        row.keys() <= known and not row.get("flags") and all(type(value) is int for value in metrics.values())
    )
    return Route(
        family,
        str(row["dst"]),
        str(row.get("table", "main")),
        quickack=metrics.get("quickack") == 1,
        initcwnd=window["initcwnd"],
        initrwnd=window["initrwnd"],
        command=tuple(command) if restated else None,
    )


def _read_routes(seconds: float) -> tuple[Route, ...] | None:
    found: list[Route] = []
    for family in (4, 6):
        argv = ["ip", "-j", f"-{family}", "route", "show", "table", "all"]
        try:
            shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds)
            found += parse_routes(family, shown.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None  # told as such: NamespaceFacts.routes
    return tuple(found)


def _read_sysctls() -> dict[str, str]:
    found = {}
    for name in SYSCTLS:
        try:
            found[name] = (DIRECTORY / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue  # this kernel does not have it
    return found


def read_settings(namespace: Namespace, *, seconds: float = 2.0) -> NamespaceFacts:
    """The settings of one namespace. Raises what :func:`call_inside` raises."""
    sysctls = call_inside(namespace, _read_sysctls)
    return NamespaceFacts((namespace,), sysctls, call_inside(namespace, _read_routes, seconds))


def group(facts: Iterable[NamespaceFacts]) -> list[NamespaceFacts]:
    """Namespaces with the same settings and routes put together, in the order of their first."""
    groups: dict[object, NamespaceFacts] = {}
    for one in facts:
        key = (tuple(sorted(one.sysctls.items())), one.routes)
        so_far = groups[key].namespaces if key in groups else ()
        groups[key] = NamespaceFacts(so_far + one.namespaces, one.sysctls, one.routes)
    return list(groups.values())


def settings_in_sight(*, seconds: float = 1.0) -> tuple[list[NamespaceFacts], list[str]]:
    """The settings of every namespace in sight, grouped, and notes on what could not be read.

    After ``seconds`` the rest is left out, and a note says how many; the current namespace is always read.
    """
    facts: list[NamespaceFacts] = []
    refused: list[str] = []
    deadline = time.monotonic() + seconds
    left_out = 0
    for namespace in in_sight():
        if facts and time.monotonic() > deadline:
            left_out += 1
            continue
        try:
            facts.append(read_settings(namespace))
        except FileNotFoundError:
            continue  # it ended meanwhile
        except (AckwardError, OSError):
            refused.append(namespace.name)
    notes = []
    if refused:
        notes.append(f"settings of {', '.join(refused)} could not be read: entering a namespace needs root")
    if left_out:
        notes.append(f"{left_out} more namespaces were not read, to answer in time")
    if any(one.routes is None for one in facts):
        notes.append("routes could not be read: is `ip` (iproute2) installed?")
    return group(facts), notes


def host_facts(facts: Iterable[NamespaceFacts]) -> HostFacts:
    """The facts of the whole host; the threshold is measured only if no namespace has it as a setting."""
    as_setting = any("tcp_pingpong_thresh" in one.sysctls for one in facts)
    return HostFacts(ticks_per_second(), None if as_setting else pingpong_threshold())


def ticks_per_second() -> int | None:
    """HZ: a coarse clock's resolution is one tick (TICK_NSEC). None if the clock ticks otherwise."""
    try:
        hz = round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))
    except OSError:
        return None
    return hz if 1 <= hz <= 10_000 else None


def ack_state(table: str, inode: int) -> tuple[int, bool] | None:
    """``quick`` and ``pingpong`` of the socket with that inode in a text of /proc/net/tcp, or None.

    The 15th column is ``(quick << 1) | pingpong`` (``get_tcp4_sock()``, net/ipv4/tcp_ipv4.c).
    """
    for line in table.splitlines():
        columns = line.split()
        # A socket of TIME_WAIT or SYN_RECV has fewer columns, and no ACK state.
        if len(columns) > 14 and columns[9] == str(inode):
            return int(columns[14]) >> 1, bool(int(columns[14]) & 1)
    return None


def _next_tick() -> None:
    start = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
    while time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) == start:
        time.sleep(0.001)


def pingpong_threshold(*, seconds: float = 1.0) -> int | None:
    """After how many answers a socket delays its ACKs here, measured on loopback; None if it never did.

    Kernels between 2019 and 2022 count an answer only if it is later, in ticks, than the one before
    (``tcp_event_data_sent()``, commit 4a41f453bedf), so each question waits for the next tick.
    """
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), timeout=seconds) as asking,
        ):
            listener.settimeout(seconds)
            answering, _ = listener.accept()
            with answering:
                answering.settimeout(seconds)
                return _count_answers(asking, answering)
    except OSError:
        return None  # loopback is down or filtered: it cannot be told


def _count_answers(asking: socket.socket, answering: socket.socket) -> int | None:
    inode = os.fstat(answering.fileno()).st_ino
    for answers in range(1, _MOST_ANSWERS + 1):
        _next_tick()
        asking.sendall(b"?")
        answering.recv(1)
        answering.sendall(b"!")
        asking.recv(1)
        state = ack_state(Path("/proc/thread-self/net/tcp").read_text(encoding="ascii"), inode)
        if state and state[1]:
            return answers
    return None
