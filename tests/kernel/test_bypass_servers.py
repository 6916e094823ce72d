"""Real programs under their normal loads over the bypass: no request fails, and what they say goes past the stack."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.kernel.bypass_hosts import engine

from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.lab.local_servers import SERVERS, program, started, wrk
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.rules import Manner
from ackward.remedies.bypass.selftest.ways import Joined
from ackward.remedies.bypass.words import kept_out

#: A run of each; the lab measures, here only failures count.
SECONDS = 1

NODE = """
const http = require('http');
const page = 'x'.repeat(1024);
http.createServer((request, response) => {
  let size = 0;
  request.on('data', part => { size += part.length; });
  request.on('end', () => { response.setHeader('Content-Length', page.length); response.end(page); });
}).listen(7511, '127.0.0.1');
"""

#: A thread a connection, blocking reads, and available() (FIONREAD) before each answer, as servlet engines do.
JAVA = """
import java.io.*;
import java.net.*;
public class Server {
  public static void main(String[] arguments) throws Exception {
    ServerSocket listener = new ServerSocket(7512, 100, InetAddress.getByName("127.0.0.1"));
    byte[] answer = ("HTTP/1.1 200 OK\\r\\nContent-Length: 1024\\r\\n\\r\\n" + "x".repeat(1024)).getBytes();
    while (true) {
      Socket socket = listener.accept();
      Thread thread = new Thread(() -> { try (socket) { talk(socket, answer); } catch (IOException error) { } });
      thread.setDaemon(true);
      thread.start();
    }
  }
  static void talk(Socket socket, byte[] answer) throws IOException {
    InputStream in = socket.getInputStream();
    OutputStream out = socket.getOutputStream();
    while (true) {
      int state = 0;
      while (state < 4) {
        int octet = in.read();
        if (octet < 0) return;
        state = octet == "\\r\\n\\r\\n".charAt(state) ? state + 1 : 0;
        int waiting = in.available();
        if (state < 4 && waiting < 1) throw new IOException("available() tells " + waiting + " inside a request");
      }
      if (in.available() != 0) throw new IOException("available() tells of bytes that are not there");
      out.write(answer);
    }
  }
}
"""

#: Streams in both directions with the event loop of asyncio; prints how many answers were right.
ASYNCIO = """
import asyncio
async def answer(reader, writer):
    while size := await reader.read(4):
        while len(size) < 4:
            size += await reader.read(4 - len(size))
        body = await reader.readexactly(int.from_bytes(size))
        writer.write(body[::-1])
        await writer.drain()
    writer.close()
    await writer.wait_closed()
async def ask(number, rounds):
    reader, writer = await asyncio.open_connection('127.0.0.1', 7513)
    right = 0
    for round_ in range(rounds):
        body = bytes([number % 251, round_ % 251]) * (1 + (number * 31 + round_ * 97) % 5000)
        writer.write(len(body).to_bytes(4) + body)
        right += await reader.readexactly(len(body)) == body[::-1]
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()
    return right
async def main():
    async with await asyncio.start_server(answer, '127.0.0.1', 7513):
        print(sum(await asyncio.gather(*(ask(number, 50) for number in range(40)))))
asyncio.run(main())
"""

#: Blocking sockets with a thread a connection: the standard library's own HTTP server and client.
BLOCKING = """
import http.client, http.server, threading
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 7514), Answer)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
right = 0
def ask(number):
    global right
    client = http.client.HTTPConnection('127.0.0.1', 7514)
    for round_ in range(50):
        body = bytes([number % 251, round_ % 251]) * (1 + (number * 31 + round_ * 97) % 5000)
        client.request('POST', '/', body)
        if client.getresponse().read() == body[::-1]:
            with lock:
                right += 1
    client.close()
lock = threading.Lock()
threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(right)
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A host whose connections the bypass joins."""
    with temporary("servers") as made, Joined.attached(made) as joined:
        _joined[made.inode] = joined
        yield made
        del _joined[made.inode]


_joined: dict[int, Joined] = {}


@pytest.fixture
def redirected(host):
    """How many messages went past the stack since the test began."""
    joined = _joined[host.inode]
    before = joined.redirected()
    return lambda: joined.redirected() - before


def needs(*names: str):
    absent = next((name for name in names if program(name) is None), None)
    return pytest.mark.skipif(absent is not None, reason=f"probe failed: {absent} is not installed")


@pytest.mark.parametrize(
    "server", [pytest.param(server, id=server.name, marks=needs(*server.needs)) for server in SERVERS]
)
def test_a_server_fails_no_request(host, server, redirected):
    with server.running(host):
        load = server.load(host, server.port, SECONDS)
    assert load.failed == 0
    assert load.per_second > 100
    assert redirected() > load.requests


@needs("redis-server", "redis-benchmark")
def test_redis_with_pipelines_and_large_values_fails_no_request(host, redirected):
    redis = next(server for server in SERVERS if server.name == "redis")
    with redis.running(host):
        for arguments in (["-P", "16", "-d", "64"], ["-d", "20000"]):
            done = inside(
                host,
                *("redis-benchmark", "-p", str(redis.port), "-c", "16", "-t", "set,get", "--csv"),
                *("-n", "16000", *arguments),
            )
            assert done.count('"SET"') == done.count('"GET"') == 1
            assert "Error" not in done
    assert redirected() > 1000


@needs("node", "wrk")
def test_node_fails_no_request(host, redirected, tmp_path):
    script = tmp_path / "server.js"
    script.write_text(NODE)
    with started(host, ["node", str(script)], 7511, tmp_path):
        load = wrk(host, 7511, SECONDS)
    assert load.failed == 0
    assert redirected() > load.requests


def java(host: Namespace, directory: Path) -> AbstractContextManager[None]:
    (directory / "Server.java").write_text(JAVA)
    subprocess.run(["javac", "-J-XX:TieredStopAtLevel=1", "Server.java"], cwd=directory, check=True)
    return started(host, ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "Server"], 7512, directory)


@needs("javac", "java", "wrk")
def test_java_that_asks_for_available_bytes_fails_no_request(host, redirected, tmp_path):
    with java(host, tmp_path):
        load = wrk(host, 7512, SECONDS)
    assert load.failed == 0
    assert redirected() > load.requests


@pytest.mark.parametrize(("script", "right"), [(ASYNCIO, 2000), (BLOCKING, 400)], ids=["asyncio", "blocking"])
def test_python_gives_every_answer(host, redirected, script, right):
    assert int(inside(host, sys.executable, "-c", textwrap.dedent(script))) == right
    assert redirected() > right


class TestLearned:
    """As ``fix bypass`` decides by itself: who profits joins after its first connections, who blocks stays out."""

    @pytest.fixture
    def learning(self) -> Iterator[tuple[Namespace, Engine]]:
        with temporary("servers-learned") as made, engine(made, BypassScope()) as learned:
            yield made, learned

    @pytest.mark.parametrize(
        "server",
        [
            pytest.param(server, id=server.name, marks=needs(*server.needs))
            for server in SERVERS
            if server.name != "redis"
        ],
    )
    def test_a_server_that_polls_joins(self, learning, server):
        host, learned = learning
        with server.running(host):
            first = server.load(host, server.port, SECONDS)
            assert learned.counters().sampled
            second = server.load(host, server.port, SECONDS)
        assert first.failed == second.failed == 0
        assert [one.manner for one in learned.services() if one.port == server.port] == [Manner.JOINS]
        assert learned.counters().redirected > second.requests

    @pytest.mark.parametrize(
        "client",
        ["'127.0.0.1', 7514", "'127.0.0.1', 7514, timeout=20"],
        ids=["both ends block", "the server blocks"],
    )
    def test_a_server_that_blocks_stays_out(self, learning, client):
        host, learned = learning
        script = textwrap.dedent(BLOCKING).replace(
            "HTTPConnection('127.0.0.1', 7514)", f"HTTPConnection({client})"
        )
        for _ in range(2):
            assert int(inside(host, sys.executable, "-c", script)) == 400
        counters = learned.counters()
        assert (counters.joined, counters.redirected) == (0, 0)
        assert "of services with a program that blocks in recv()" in kept_out(counters)

    @needs("redis-server", "redis-benchmark")
    def test_redis_stays_out_for_one_client_that_blocks(self, learning):
        """redis-benchmark first asks for the configuration, over a connection that blocks once it is made (hiredis)."""
        host, learned = learning
        redis = next(server for server in SERVERS if server.name == "redis")
        with redis.running(host):
            loads = [redis.load(host, redis.port, SECONDS) for _ in range(2)]
        assert [load.failed for load in loads] == [0, 0]
        assert [one.manner for one in learned.services() if one.port == redis.port] == [Manner.BLOCKS]
        assert "of services with a program that blocks in recv()" in kept_out(learned.counters())

    @needs("javac", "java", "wrk")
    def test_java_that_blocks_stays_out(self, learning, tmp_path):
        host, learned = learning
        with java(host, tmp_path):
            loads = [wrk(host, 7512, SECONDS) for _ in range(2)]
        assert [load.failed for load in loads] == [0, 0]
        assert learned.counters().joined == 0
        assert "of services with a program that blocks in recv()" in kept_out(learned.counters())


def inside(host: Namespace, *argv: str) -> str:
    done = subprocess.run(
        command_inside(host, list(argv)), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
