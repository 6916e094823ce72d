"""The questions that probes ask of Linux, each one small function that tests replace by a recorded answer.

Whatever a question has to make (a socket, a program, a map, a namespace) is gone when it is answered. One
trace may stay: trying a qdisc or an iptables target lets the kernel load the module that holds it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.bpf_syscall import (
    AttachType,
    MapType,
    ProgramType,
    attach_raw_tracepoint,
    create_map,
    load_program,
)
from ackward.kernel.btf import Btf, kernel_btf
from ackward.kernel.libbpf import library
from ackward.kernel.namespaces import call_inside, temporary
from ackward.model.tcp_constants import IPPROTO_MPTCP

PIDFD_GETFD = 438  # __NR_pidfd_getfd, the same on every architecture since pidfds


@dataclass(frozen=True)
class Machine:
    """One host. Questions that answer with a number answer with an errno, 0 for success.

    ``read`` gives a file's text or raises :class:`OSError`. ``inside`` runs a command in a new network
    namespace: its exit code and the first line of its complaint; it raises :class:`Unavailable` without root
    and :class:`FileNotFoundError` without the tool.
    """

    read: Callable[[Path], str]
    user: Callable[[], int]
    btf: Callable[[], Btf]
    libbpf: Callable[[], str]
    load_program: Callable[[ProgramType, AttachType, int], int]
    attach_raw_tracepoint: Callable[[str], int]
    create_map: Callable[[MapType, int, int, int, int], int]
    socket_option: Callable[[int, int], int]
    mptcp_socket: Callable[[], int]
    pidfd_getfd: Callable[[], int]
    inside: Callable[[list[str]], tuple[int, str]]


def _libbpf() -> str:
    return str(library()._name)


def _socket_option(option: int, value: int) -> int:
    """Set a TCP option on a socket that never connects."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError as error:
            return error.errno or -1
    return 0


def _mptcp_socket() -> int:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return error.errno or -1
    return 0


def _pidfd_getfd() -> int:
    """Copy a descriptor of this process the way another one's would be copied."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError as error:
        return error.errno or -1
    try:
        copy = libc.syscall(PIDFD_GETFD, pidfd, pidfd, 0)
        if copy < 0:
            return ctypes.get_errno()
        os.close(copy)
    finally:
        os.close(pidfd)
    return 0


def _inside(argv: list[str]) -> tuple[int, str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=2)

    try:
        with temporary("doctor") as namespace:
            outcome = call_inside(namespace, run)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"`{argv[0]}` did not answer within {error.timeout:g} s",
            consequence="what it would tell of this kernel is not known",
            next_step="run `ackward doctor` again when the machine is less busy",
        ) from error
    return outcome.returncode, outcome.stderr.strip().partition("\n")[0]


LINUX = Machine(
    read=lambda path: path.read_text(encoding="ascii", errors="replace"),
    user=os.geteuid,
    btf=kernel_btf,
    libbpf=_libbpf,
    load_program=load_program,
    attach_raw_tracepoint=attach_raw_tracepoint,
    create_map=create_map,
    socket_option=_socket_option,
    mptcp_socket=_mptcp_socket,
    pidfd_getfd=_pidfd_getfd,
    inside=_inside,
)
