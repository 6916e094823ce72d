"""Programs that notice when a byte is lost or out of place, compiled from ``bypass_load*.c`` and run on test hosts."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ackward.kernel.namespaces import Namespace, command_inside

PORT = 7410


def compiled(directory: Path) -> Path:
    """The program, in that directory."""
    program = directory / "bypass_load"
    sources = map(str, sorted(Path(__file__).parent.glob("bypass_load*.c")))
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-pthread", "-o", str(program), *sources], check=True)
    return program


@dataclass(frozen=True)
class Done:
    """What a client printed, and the processor seconds of client and server together."""

    numbers: tuple[float, ...]
    cpu_seconds: float


@dataclass
class Load:
    """A server that runs in a host."""

    program: Path
    server: subprocess.Popen[str]
    port: int

    def client(
        self, host: Namespace, mode: str, address: str, *arguments: object, limit: float = 120
    ) -> Done:
        """Run a client to its end; raises AssertionError with its complaint if anything was not right."""
        argv = [str(self.program), mode, address, str(self.port), *map(str, arguments)]
        before = self._cpu()
        done = subprocess.run(
            command_inside(host, argv), capture_output=True, text=True, timeout=limit, check=False
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return Done(tuple(map(float, done.stdout.split())), self._cpu() - before)

    def within(self, way: str, size: int, seconds: float, limit: float = 120) -> Done:
        """The rounds of ``ask`` between two processes over ``way``, a Unix socket or two pipes: `unix`, `pipe`."""
        argv = [str(self.program), way, str(size), str(seconds)]
        before = self._cpu()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, check=True)
        return Done(tuple(map(float, done.stdout.split())), self._cpu() - before)

    def _cpu(self) -> float:
        """Of the server, and of all clients that have ended."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ticks / 100 + ended.ru_utime + ended.ru_stime


@contextmanager
def serving(host: Namespace, program: Path, threads: int, port: int = PORT) -> Iterator[Load]:
    """The server half, in its host until the end."""
    argv = command_inside(host, [str(program), "serve", str(port), str(threads)])
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Load(program, server, port)
        assert server.poll() is None, "the server has ended: it saw something wrong"
    finally:
        server.kill()
        server.communicate()
