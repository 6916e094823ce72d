"""The soak's traffic: ``python -m tests.kernel.gateway_load serve PORT`` and ``... ask PORT CONNECTIONS AT_ONCE BYTES``.

A connection's first line says what shall happen, its seed makes the bytes of both directions, and each side compares
what comes with what must come. Kinds: ``whole`` (both directions, ended by the client first or by the server first),
``half`` (the client ends at once and listens on), ``reset`` (one side resets in the middle: what came must be a
beginning of what was sent). The server prints what was wrong at its side, and nothing else after ``ready``; the client
one line of JSON, ``carried`` being the bytes of both directions that came whole (those of resets not counted).
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import struct
import sys
from collections import Counter

_BLOCK = random.Random(8).randbytes(1 << 20)
_CHUNK = 1 << 16


def stretch(seed: int, start: int, size: int) -> bytes:
    """``size`` bytes of a stream from ``start`` on: the block, rotated by the seed."""
    begin = (seed * 7919 + start) % len(_BLOCK)
    found = _BLOCK[begin : begin + size]
    while len(found) < size:
        found += _BLOCK[: size - len(found)]
    return found


async def send(writer: asyncio.StreamWriter, seed: int, size: int) -> None:
    sent = 0
    while sent < size:
        part = stretch(seed, sent, min(_CHUNK, size - sent))
        writer.write(part)
        await writer.drain()
        sent += len(part)


async def receive(reader: asyncio.StreamReader, seed: int, size: int) -> int:
    """How many bytes came until the end, or -1 - position at the first wrong one."""
    come = 0
    while data := await reader.read(_CHUNK):
        if data != stretch(seed, come, len(data)) or come + len(data) > size:
            return -1 - come
        come += len(data)
    return come


def abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sending = None
    try:
        kind, seed, up, down = (await reader.readuntil(b"\n")).split()
        seed, up, down = int(seed), int(up), int(down)
        if kind == b"server-reset":
            await send(writer, seed + 1, down // 2)
            abort(writer)
            return
        sending = asyncio.create_task(send(writer, seed + 1, down))
        if kind == b"server-first":
            await sending
            writer.write_eof()
        come = await receive(reader, seed, up)
        if come < 0:
            complain(f"{kind.decode()} {seed}: wrong byte at {-1 - come} of {up} went up")
        await sending
        # What came up is told at the end, if this direction is still open.
        if kind != b"server-first":
            writer.write(struct.pack("!q", come))
            writer.write_eof()
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client sees it, and tells
    finally:
        await ended(sending)
        writer.close()


async def ended(task: asyncio.Task | None) -> None:
    """No task is left behind: its complaint would fill a pipe that nobody reads."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


_complaints = 0


def complain(words: str) -> None:
    """Nobody reads before the end: no more than fits into a pipe."""
    global _complaints
    _complaints += 1
    if _complaints <= 20:
        print(words, flush=True)


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096, limit=1 << 18)
    print("ready", flush=True)
    await server.serve_forever()


async def one(port: int, number: int, size: int) -> tuple[str, str, int]:
    """One connection: what it was, what was wrong with it, and how many bytes came whole; about ``size`` in either
    direction.
    """
    chance = random.Random(number)
    kind = chance.choices(
        ["client-first", "server-first", "half", "client-reset", "server-reset"], [4, 3, 2, 1, 1]
    )[0]
    up, down = (
        chance.randrange(0, 2 * size) if chance.random() < 0.8 else chance.randrange(3) for _ in range(2)
    )
    if kind == "half":
        up = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 18)
    group = "reset" if kind.endswith("reset") else "half" if kind == "half" else "whole"
    wrong, sending = "", None
    try:
        writer.write(b"%s %d %d %d\n" % (kind.encode(), number, up, down))
        if kind == "client-reset":
            await send(writer, number, up // 2)
            abort(writer)
            return group, "", 0
        sending = asyncio.create_task(send(writer, number, up))
        if kind == "half":
            await sending
            writer.write_eof()
        wrong = await compare(reader, writer, sending, kind, number, up, down)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if kind != "server-reset":
            wrong = f"{kind} {number}: {error!r}"
    finally:
        await ended(sending)
        writer.close()
    return group, wrong, 0 if wrong or group == "reset" else up + down


async def compare(reader, writer, sending, kind: str, number: int, up: int, down: int) -> str:
    if kind == "server-reset":
        come = await receive(reader, number + 1, down)
        return (
            f"{kind} {number}: wrong byte at {-1 - come}"
            if come < 0
            else f"{kind} {number}: an end, no reset"
        )
    if kind == "server-first":
        come = await receive(reader, number + 1, down)
        await sending
        writer.write_eof()
        return "" if come == down else f"{kind} {number}: {come} of {down}"
    come = 0
    while come < down:
        data = await reader.readexactly(min(_CHUNK, down - come))
        if data != stretch(number + 1, come, len(data)):
            return f"{kind} {number}: wrong after {come}"
        come += len(data)
    await sending
    if kind == "client-first":
        writer.write_eof()
    (told,) = struct.unpack("!q", await reader.readexactly(8))
    if await reader.read(1):
        return f"{kind} {number}: bytes after the end"
    return "" if told == up else f"{kind} {number}: {told} of {up} went up"


async def ask(port: int, connections: int, at_once: int, size: int) -> None:
    room = asyncio.Semaphore(at_once)
    groups: Counter[str] = Counter()
    wrong: list[str] = []
    carried = 0

    async def limited(number: int) -> None:
        nonlocal carried
        async with room:
            try:
                # So much in either direction: without resets and directions of no bytes 1.16 of the size are left.
                each = one(port, number, max(1, size // connections))
                group, fault, came = await asyncio.wait_for(each, 60)
            except TimeoutError:
                group, fault, came = "whole", f"{number}: hangs", 0
            except OSError as error:
                group, fault, came = "whole", f"{number}: {error!r}", 0
        groups[group] += 1
        carried += came
        if fault:
            wrong.append(fault)

    await asyncio.gather(*(limited(number) for number in range(connections)))
    print(
        json.dumps(
            {
                "connections": connections,
                "carried": carried,
                "wrong": wrong[:20],
                **{g: groups[g] for g in ("whole", "half", "reset")},
            }
        )
    )


if __name__ == "__main__":
    role, *numbers = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve(int(numbers[0])) if role == "serve" else ask(*map(int, numbers)))
