"""The socket calls that a dialogue is made of: each is one system call of a program, and gives what the program saw.

What was seen is a short line of text: two transcripts are the same if and only if their lines are. Bytes appear as
their number and a checksum, a failure as the name of its errno. No call blocks, except those in :data:`BLOCKING`.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from ackward.remedies.bypass.selftest.end import End, stream

#: include/uapi: what Python's socket module has no name for.
_SIOCATMARK, _SO_PEEK_OFF, _SO_ZEROCOPY, _MSG_ZEROCOPY, _TCP_INQ = 0x8905, 42, 60, 0x4000000, 36
_TCP_ULP, _TCP_ZEROCOPY_RECEIVE = 31, 35
_POLLRDHUP = 0x2000
_POLL_NAMES = {
    select.POLLIN: "IN",
    select.POLLPRI: "PRI",
    select.POLLOUT: "OUT",
    select.POLLERR: "ERR",
    select.POLLHUP: "HUP",
    _POLLRDHUP: "RDHUP",
}
#: How long a call with a time limit waits, seconds: as long as the scheduler of a busy machine needs to be told apart.
TIME_LIMIT = 0.02
#: How long anything may take to arrive, seconds: far above what a busy machine makes of microseconds.
ARRIVAL = 1.0
#: A writer that got rid of this much to a peer that does not read is not stopped by anything, bytes.
NEVER_STOPPED = 64 << 20


def name_of(error: OSError) -> str:
    """The name of an errno, for example ``EPIPE``."""
    return errno.errorcode.get(error.errno or 0, str(error))


def _seen(data: bytes) -> str:
    return f"{len(data)} B #{zlib.crc32(data):08x}" if data else "end of stream"


def _read(end: End, data: bytes) -> str:
    end.read += len(data)
    return _seen(data)


def _events(mask: int) -> str:
    return "|".join(name for bit, name in _POLL_NAMES.items() if mask & bit) or "nothing"


def _send(flags: int) -> Callable[[End, int], str]:
    def send(end: End, count: int) -> str:
        sent = end.socket.send(end.next_bytes(count), flags | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        end.written += sent
        return f"{sent} B"

    return send


def _send_gathered(end: End, count: int) -> str:
    data = end.next_bytes(count)
    half = count // 2
    sent = end.socket.sendmsg([data[:half], data[half:]], [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    end.written += sent
    return f"{sent} B"


def _send_urgent(end: End, _: int) -> str:
    sent = end.socket.send(b"!", socket.MSG_OOB | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    return f"{sent} B"


def _send_zero_copy(end: End, count: int) -> str:
    end.socket.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
    sent = end.socket.send(end.next_bytes(count), _MSG_ZEROCOPY | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    end.written += sent
    return f"{sent} B"


def _send_file(end: End, count: int) -> str:
    file = os.memfd_create("said")
    try:
        os.write(file, end.next_bytes(count))
        sent = os.sendfile(end.socket.fileno(), file, 0, count)
    finally:
        os.close(file)
    end.written += sent
    return f"{sent} B"


def _splice_in(end: End, count: int) -> str:
    out, into = os.pipe()
    try:
        os.write(into, end.next_bytes(count))
        sent = os.splice(out, end.socket.fileno(), count, flags=os.SPLICE_F_NONBLOCK)
    finally:
        os.close(out)
        os.close(into)
    end.written += sent
    return f"{sent} B"


def _splice_out(end: End, count: int) -> str:
    out, into = os.pipe()
    # SPLICE_F_NONBLOCK is the pipe's: tcp_splice_read() asks the socket's own flag.
    end.socket.settimeout(0)
    try:
        moved = os.splice(end.socket.fileno(), into, count, flags=os.SPLICE_F_NONBLOCK)
        return _read(end, os.read(out, moved) if moved else b"")
    finally:
        end.socket.settimeout(None)
        os.close(out)
        os.close(into)


def _fill(end: End, _: int) -> str:
    """Write until the kernel takes no more."""
    start = end.written
    try:
        while end.written - start < NEVER_STOPPED:
            _send(0)(end, 1 << 16)
    except BlockingIOError:
        return "is stopped"
    return f"is not stopped by {NEVER_STOPPED >> 20} MiB that nobody reads"


def _receive(flags: int) -> Callable[[End, int], str]:
    def receive(end: End, count: int) -> str:
        return _read(end, end.socket.recv(count, flags | socket.MSG_DONTWAIT))

    return receive


def _receive_blocking(flags: int) -> Callable[[End, int], str]:
    def receive(end: End, count: int) -> str:
        return _read(end, end.socket.recv(count, flags))

    return receive


def _peek(end: End, count: int) -> str:
    return _seen(end.socket.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT))


def _receive_urgent(end: End, _: int) -> str:
    return _seen(end.socket.recv(1, socket.MSG_OOB | socket.MSG_DONTWAIT))


def _receive_scattered(end: End, count: int) -> str:
    first, second = bytearray(count // 2), bytearray(count - count // 2)
    got, _, flags, _ = end.socket.recvmsg_into([first, second], 0, socket.MSG_DONTWAIT)
    return f"{_read(end, bytes(first + second)[:got])}, flags {flags:#x}"


def _discard(end: End, count: int) -> str:
    """MSG_TRUNC on TCP: the bytes are taken and go nowhere."""
    discarded = len(end.socket.recv(count, socket.MSG_TRUNC | socket.MSG_DONTWAIT))
    end.read += discarded
    return f"{discarded} B discarded"


def _receive_with_rest(end: End, count: int) -> str:
    """TCP_INQ: how much is left comes with what is read."""
    end.socket.setsockopt(socket.IPPROTO_TCP, _TCP_INQ, 1)
    try:
        data, ancillary, _, _ = end.socket.recvmsg(count, 64, socket.MSG_DONTWAIT)
    finally:
        end.socket.setsockopt(socket.IPPROTO_TCP, _TCP_INQ, 0)
    left = [struct.unpack("=i", value)[0] for _, kind, value in ancillary if kind == _TCP_INQ]
    return f"{_read(end, data)}, {left[0] if left else 'nothing said of what is'} left"


def _receive_in_time(end: End, count: int) -> str:
    limit = struct.pack("@ll", 0, int(TIME_LIMIT * 1e6))
    end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    try:
        return _read(end, end.socket.recv(count))
    finally:
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 0))


class _ZeroCopyReceive(ctypes.Structure):
    """struct tcp_zerocopy_receive, include/uapi/linux/tcp.h."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("recv_skip_hint", ctypes.c_uint32),
        ("inq", ctypes.c_uint32),
        ("err", ctypes.c_int32),
        ("copybuf_address", ctypes.c_uint64),
        ("copybuf_len", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


def _receive_zero_copy(end: End, count: int) -> str:
    """TCP_ZEROCOPY_RECEIVE with nothing to map: small messages are copied into the buffer beside it."""
    buffer = ctypes.create_string_buffer(count)
    asked = _ZeroCopyReceive(copybuf_address=ctypes.addressof(buffer), copybuf_len=count)
    size = ctypes.c_uint32(ctypes.sizeof(asked))
    libc = ctypes.CDLL(None, use_errno=True)
    number = end.socket.fileno()
    if libc.getsockopt(
        number, socket.IPPROTO_TCP, _TCP_ZEROCOPY_RECEIVE, ctypes.byref(asked), ctypes.byref(size)
    ):
        raise OSError(ctypes.get_errno(), "TCP_ZEROCOPY_RECEIVE")
    end.read += asked.copybuf_len
    return f"{asked.copybuf_len} B copied, {asked.inq} waiting"


def _drain(end: End, _: int) -> str:
    """Read all that was written, and look whether it is that.

    How much a writer could get rid of before it was stopped is no part of TCP's promise: it is not told. What it did
    get rid of is, so what is still on its way is waited for.
    """
    whole, ending = True, ""
    deadline = time.monotonic() + ARRIVAL
    while not ending and time.monotonic() < deadline:
        try:
            data = end.socket.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if end.read >= end.other.written and not end.other.finished:
                break
            time.sleep(0)
            continue
        whole &= data == stream(end.read, len(data))
        end.read += len(data)
        if not data:
            ending = ", then end of stream"
    if not whole:
        return f"bytes out of place{ending}"
    missing = end.other.written - end.read
    return f"{missing} B missing{ending}" if missing else f"all that was written{ending}"


def _waiting(end: End, _: int) -> str:
    number = array.array("i", [0])
    fcntl.ioctl(end.socket, termios.FIONREAD, number)
    return f"{number[0]} B"


def _at_mark(end: End, _: int) -> str:
    number = array.array("i", [0])
    fcntl.ioctl(end.socket, _SIOCATMARK, number)
    return str(bool(number[0]))


def _poll(end: End, _: int) -> str:
    poll = select.poll()
    poll.register(end.socket, select.POLLIN | select.POLLPRI | select.POLLOUT | _POLLRDHUP)
    return _events(sum(mask for _, mask in poll.poll(0)))


def _edge(end: End, _: int) -> str:
    return _events(sum(mask for _, mask in end.edges.poll(0)))


def _error(end: End, _: int) -> str:
    number = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(number, str(number)) if number else "none"


def _shutdown(how: int) -> Callable[[End, int], str]:
    def shutdown(end: End, _: int) -> str:
        end.socket.shutdown(how)
        end.finished |= how != socket.SHUT_RD
        return "done"

    return shutdown


def _close(end: End, _: int) -> str:
    end.edges.close()
    end.socket.close()
    end.closed = end.finished = True
    return "done"


def _close_with_reset(end: End, _: int) -> str:
    end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    return _close(end, 0)


def _option(level: int, option: int) -> Callable[[End, int], str]:
    def set_option(end: End, value: int) -> str:
        end.socket.setsockopt(level, option, value)
        return "done"

    return set_option


def _layer(name: bytes) -> Callable[[End, int], str]:
    def push(end: End, _: int) -> str:
        end.socket.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, name)
        return "done"

    return push


def _descriptor(end: End, _: int) -> str:
    """A second descriptor of the socket, closed again: the connection goes on (fork and exec do the same)."""
    os.close(os.dup(end.socket.fileno()))
    return "done"


#: name -> (the call, what stands in a program). ``n`` is the argument.
CALLS: dict[str, tuple[Callable[[End, int], str], str]] = {
    "send": (_send(0), "send(n)"),
    "send more": (_send(socket.MSG_MORE), "send(n, MSG_MORE)"),
    "send gathered": (_send_gathered, "writev(n)"),
    "send urgent": (_send_urgent, "send(1, MSG_OOB)"),
    "send zero-copy": (_send_zero_copy, "send(n, MSG_ZEROCOPY)"),
    "send file": (_send_file, "sendfile(n)"),
    "splice in": (_splice_in, "splice(pipe -> socket, n)"),
    "fill": (_fill, "send() until it would block"),
    "receive": (_receive(0), "recv(n)"),
    "peek": (_peek, "recv(n, MSG_PEEK)"),
    "discard": (_discard, "recv(n, MSG_TRUNC)"),
    "receive urgent": (_receive_urgent, "recv(1, MSG_OOB)"),
    "receive scattered": (_receive_scattered, "readv(n)"),
    "receive with rest": (_receive_with_rest, "recvmsg(n) with TCP_INQ"),
    "receive in time": (_receive_in_time, "recv(n) with SO_RCVTIMEO"),
    "receive zero-copy": (_receive_zero_copy, "getsockopt(TCP_ZEROCOPY_RECEIVE, n)"),
    "splice out": (_splice_out, "splice(socket -> pipe, n)"),
    "drain": (_drain, "recv() until it would block"),
    "waiting": (_waiting, "ioctl(FIONREAD)"),
    "at mark": (_at_mark, "ioctl(SIOCATMARK)"),
    "poll": (_poll, "poll()"),
    "edge": (_edge, "epoll_wait(), edge-triggered"),
    "error": (_error, "getsockopt(SO_ERROR)"),
    "shut write": (_shutdown(socket.SHUT_WR), "shutdown(SHUT_WR)"),
    "shut read": (_shutdown(socket.SHUT_RD), "shutdown(SHUT_RD)"),
    "shut both": (_shutdown(socket.SHUT_RDWR), "shutdown(SHUT_RDWR)"),
    "close": (_close, "close()"),
    "reset": (_close_with_reset, "close() with SO_LINGER 0"),
    "least": (_option(socket.SOL_SOCKET, socket.SO_RCVLOWAT), "setsockopt(SO_RCVLOWAT, n)"),
    "cork": (_option(socket.IPPROTO_TCP, socket.TCP_CORK), "setsockopt(TCP_CORK, n)"),
    "urgent inline": (_option(socket.SOL_SOCKET, socket.SO_OOBINLINE), "setsockopt(SO_OOBINLINE, n)"),
    "peek from": (_option(socket.SOL_SOCKET, _SO_PEEK_OFF), "setsockopt(SO_PEEK_OFF, n)"),
    "layer": (_layer(b"tls"), "setsockopt(TCP_ULP, tls)"),
    "duplicate": (_descriptor, "close(dup())"),
    # Blocking: begun in one step, ended in another.
    "wait": (_receive_blocking(0), "blocking recv(n)"),
    "wait for all": (_receive_blocking(socket.MSG_WAITALL), "recv(n, MSG_WAITALL)"),
}
BLOCKING = frozenset({"wait", "wait for all"})
#: After these bytes may stay with the sender for as long as it likes.
HOLDING = frozenset({"fill", "cork", "send more"})


def words(call: str, argument: int) -> str:
    """The call as it stands in a program: ``recv(20, MSG_PEEK)``."""
    return CALLS[call][1].replace("(n", f"({argument}").replace(", n)", f", {argument})")


def perform(end: End, call: str, argument: int) -> str:
    """Make the call and give what the program saw: a result or the name of an errno."""
    if end.closed:
        return "closed"
    try:
        return CALLS[call][0](end, argument)
    except OSError as error:
        return name_of(error)


def is_blocked(thread: int, number: int) -> bool:
    """Whether a thread of ours waits in a system call on that descriptor (its first argument)."""
    try:
        fields = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
    except OSError:
        return False
    return len(fields) > 1 and fields[0] != "running" and int(fields[1], 16) == number
