"""The CNI plugin's stub alone: no agent, a confused agent, bad input. It fails open, and it is never half-hearted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.stub_runs import RESULT, configuration, run, stub

from ackward.node import wire
from ackward.node.cni import VERSIONS
from ackward.node.cni_missed import Missed
from ackward.node.wire import Answer, Request

ASKS = {"enable-quickack": "true"}
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def machines() -> list[object]:
    """The machines that the stub is built for; arm64 runs in an emulator."""
    emulator = shutil.which("qemu-aarch64-static") is not None or "CI" in os.environ
    reason = "probe failed: no qemu-aarch64-static"
    return ["x86_64", pytest.param("aarch64", marks=[] if emulator else pytest.mark.skip(reason=reason))]


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """The path of a socket that nobody serves; an agent has been there."""
    directory = tmp_path / "node"
    directory.mkdir(mode=0o700)
    return directory / "agent.sock"


@pytest.fixture
def missed(nobody: Path) -> Missed:
    return Missed(nobody.parent / "missed")


@contextmanager
def served(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """An agent that reads one request and then does as ``answer`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client, client.makefile("rb") as file:
                environment, configuration = wire.lengths(file.read(wire.HEADER.size))
                file.read(environment + configuration)
                answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)
        assert not thread.is_alive()
    path.unlink()


@pytest.mark.parametrize("machine", machines())
def test_version_needs_no_agent_and_no_namespace(machine: str) -> None:
    for version in VERSIONS:
        asked = json.dumps({"cniVersion": version}).encode()
        done = run("VERSION", asked, argv=stub(machine), netns="dummy")
        assert done.code == 0
        assert json.loads(done.out) == {"cniVersion": version, "supportedVersions": list(VERSIONS)}
    for odd in (b"", b"{}", b'{"cniVersion":"9.9.9"}', b"no JSON", b'{"cniVersion":7}'):
        done = run("VERSION", odd, argv=stub(machine))
        assert (done.code, json.loads(done.out)["supportedVersions"]) == (0, list(VERSIONS))


@pytest.mark.parametrize("machine", machines())
def test_without_agent_a_pod_starts_and_the_request_waits(machine: str, nobody: Path, missed: Missed) -> None:
    stdin = configuration(nobody, ASKS)
    done = run("ADD", stdin, argv=stub(machine), container="aa-1.b_2")
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert "does not answer" in done.err
    seen: list[Request] = []
    assert missed.waiting() == 1
    assert missed.replay(lambda request: seen.append(request) or Answer()) == 1
    assert missed.waiting() == 0
    assert seen[0].configuration == stdin
    assert seen[0].environment["CNI_CONTAINERID"] == "aa-1.b_2"
    assert seen[0].environment["CNI_COMMAND"] == "ADD"
    assert missed.directory.stat().st_mode & 0o777 == 0o700


def test_without_agent_a_pod_that_asks_for_nothing_leaves_nothing(nobody: Path) -> None:
    for asks in (None, {}, {"app": "enable-quickack-not"}):
        done = run("ADD", configuration(nobody, asks, failurePolicy="closed"))
        assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert not list(nobody.parent.iterdir())


def test_del_always_succeeds_and_takes_the_waiting_request_away(nobody: Path, missed: Missed) -> None:
    stdin = configuration(nobody, ASKS)
    assert run("ADD", stdin).code == 0
    assert missed.waiting() == 1
    assert run("DEL", configuration(nobody, prevResult=...)).out == b""
    assert missed.waiting() == 0
    for odd in (b"", b"{", b"[1]", b'{"agentSocket":7}', stdin + b"x", b" " * (10 << 20)):
        done = run("DEL", odd)
        assert (done.code, done.out) == (0, b"")
    assert run("DEL", stdin, container="", netns="", ifname="").code == 0


def test_failure_policy_closed_is_try_again_later(nobody: Path) -> None:
    stdin = configuration(nobody, ASKS, failurePolicy="closed")
    for command in ("ADD", "CHECK"):
        assert run(command, stdin).error["code"] == 11
    assert run("DEL", stdin).code == 0
    assert not list(nobody.parent.iterdir())


def test_without_agent_status_and_check_let_be_unless_closed(nobody: Path) -> None:
    """A runtime whose plugin's STATUS fails calls the node's network not ready: no pod would start."""
    stdin = configuration(nobody, ASKS, cniVersion="1.1.0")
    status = run("STATUS", stdin)
    assert (status.code, status.out, "does not answer" in status.err) == (0, b"", True)
    assert run("STATUS", configuration(nobody, cniVersion="1.1.0", failurePolicy="closed")).error == {
        "cniVersion": "1.1.0",
        "code": 50,
        "msg": "the node agent of ackward does not answer",
        "details": "failurePolicy is closed: pods that ask for something do not start",
    }
    assert (run("CHECK", stdin).code, run("CHECK", stdin).out) == (0, b"")
    assert run("GC", stdin).error["code"] == 11


def test_a_stale_socket_is_no_agent(nobody: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(nobody))
    assert json.loads(run("ADD", configuration(nobody, ASKS)).out) == RESULT


def test_prev_result_comes_back_byte_for_byte(nobody: Path) -> None:
    odd = b'{ "a":1e2,\t"b" : "\\u00e4\\/", "a": -0.50 , "ips":[ ] }'
    stdin = b'{"prevResult":{"first":1},"cniVersion":"0.4.0","agentSocket":"%s", "prevResult" :  %s  }\n'
    stdin %= (os.fsencode(nobody), odd)
    assert run("ADD", stdin).out == odd
    with served(nobody, lambda client: client.sendall(Answer().pack())):
        assert run("ADD", stdin).out == odd


@pytest.mark.parametrize("previous", [..., None, "text", 7, [], True])
def test_prev_result_must_be_there(nobody: Path, previous: object) -> None:
    error = run("ADD", configuration(nobody, ASKS, prevResult=previous)).error
    assert (error["code"], error["cniVersion"]) == (7, "1.0.0")


BROKEN = {
    "nothing": b"",
    "blank": b"  \n",
    "cut": b'{"cniVersion":"1.0.0"',
    "no object": b'["cniVersion"]',
    "trailing": b'{"cniVersion":"1.0.0"} {}',
    "comma": b'{"a":1,}',
    "word": b'{"a":nul}',
    "number": b'{"a":01}',
    "minus": b'{"a":-}',
    "fraction": b'{"a":1.}',
    "exponent": b'{"a":1e}',
    "NaN": b'{"a":NaN}',
    "control": b'{"a":"\n"}',
    "UTF-8": b'{"a":"\xc3("}',
    "overlong": b'{"a":"\xc0\xaf"}',
    "surrogate": b'{"a":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "half a character": b'{"a":"\xf0\x9f\x98',
    "escape": b'{"a":"\\x"}',
    "unicode": b'{"a":"\\u12g4"}',
    "unquoted": b"{a:1}",
    "deep": b'{"a":' * 200 + b"1" + b"}" * 200,
    "too much": b'{"a":"' + b"x" * (10 << 20) + b'"}',
}


@pytest.mark.parametrize("stdin", BROKEN.values(), ids=BROKEN)
def test_broken_json(stdin: bytes) -> None:
    for command in ("ADD", "CHECK", "STATUS", "GC"):
        assert run(command, stdin).error["code"] == 6


@pytest.mark.parametrize("command", ["", "add", "ADDX", "NOPE", "UPDATE"])
def test_unknown_command(command: str, nobody: Path) -> None:
    error = run(command, configuration(nobody, ASKS)).error
    assert error["code"] == 4
    assert "CNI_COMMAND" in error["msg"]


def test_variables_without_end(nobody: Path) -> None:
    variables = {"CNI_ARGS": "x" * (100 << 10)}
    assert run("ADD", configuration(nobody, ASKS), **variables).error["code"] == 4
    assert run("DEL", configuration(nobody, ASKS), **variables).code == 0


@pytest.mark.parametrize(
    "path", ["", "relative/agent.sock", "/" + "long" * 40, 7, "/run/\u0007x", '/r"un/x', "/é"]
)
def test_a_socket_that_is_no_path(path: object, nobody: Path) -> None:
    """As without an agent: the pod starts, and nothing is left anywhere."""
    stdin = configuration(nobody, ASKS, agentSocket=path, cniVersion="1.1.0")
    done = run("ADD", stdin)
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert "agentSocket is no plain absolute path" in done.err
    assert "could not be left" in done.err
    assert [run(command, stdin).code for command in ("CHECK", "DEL", "STATUS")] == [0, 0, 0]
    closed = configuration(nobody, ASKS, agentSocket=path, failurePolicy="closed")
    error = run("ADD", closed).error
    assert (error["code"], "agentSocket" in error["msg"]) == (11, True)
    plain = run("ADD", configuration(nobody, agentSocket=path, failurePolicy="closed"))
    assert (plain.code, json.loads(plain.out)) == (0, RESULT)


@pytest.mark.parametrize("machine", machines())
def test_a_namespace_that_is_gone_is_an_error_of_pods_that_ask(
    machine: str, nobody: Path, missed: Missed, tmp_path: Path
) -> None:
    """The stub runs among the runtime's mounts, so it can tell; nobody has to be asked."""
    plain = tmp_path / "file"
    plain.touch()
    for netns in ("/run/netns/ackward-never-was", str(plain), f"{plain}/x", "relative", "12"):
        for command in ("ADD", "CHECK"):
            error = run(command, configuration(nobody, ASKS), netns=netns, argv=stub(machine)).error
            assert (error["code"], "CNI_NETNS" in error["msg"]) == (4, True), netns
        assert run("DEL", configuration(nobody, ASKS), netns=netns, argv=stub(machine)).code == 0
        done = run("ADD", configuration(nobody, failurePolicy="closed"), netns=netns, argv=stub(machine))
        assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert missed.waiting() == 0


@pytest.mark.parametrize("container", ["../../etc", "a/b", "", "x" * 300, "a b", ".being-written"])
def test_a_container_id_never_becomes_a_path(container: str, nobody: Path) -> None:
    """Nor the name of a request that is still being written, which an agent removes."""
    done = run("ADD", configuration(nobody, ASKS), container=container)
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert "could not be left" in done.err
    assert not list(nobody.parent.iterdir())


def test_a_mistyped_socket_makes_no_directories(tmp_path: Path) -> None:
    """The pod starts; what could not be left is said."""
    done = run("ADD", configuration(tmp_path / "mistyped/agent.sock", ASKS))
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert "could not be left" in done.err
    assert list(tmp_path.iterdir()) == []


def test_what_waits_is_bounded(nobody: Path, missed: Missed) -> None:
    missed.directory.mkdir(parents=True)
    for number in range(500):
        (missed.directory / f"{number}.eth0").touch()
    done = run("ADD", configuration(nobody, ASKS))
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert "could not be left" in done.err
    assert missed.waiting() == 500
    (missed.directory / "0.eth0").unlink()
    huge = configuration(nobody, ASKS | {"more": "x" * (200 << 10)})
    assert run("ADD", huge).code == 0
    assert missed.waiting() == 499
    assert run("ADD", configuration(nobody, ASKS)).code == 0
    assert missed.waiting() == 500


CONFUSED = {
    "closes": b"",
    "other protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "cut header": Answer().pack()[:-1],
    "cut body": Answer(1, b'{"code":7}').pack()[:-1],
    "success with a body": Answer(0, b"{}").pack(),
    "failure without": Answer(1).pack(),
    "code": Answer(139, b"{}").pack(),
    "no object": Answer(1, b"oops").pack(),
    "without end": wire.HEADER.pack(wire.PROTOCOL, 1, 0xFFFFFFFF),
}


@pytest.mark.parametrize("answer", CONFUSED.values(), ids=CONFUSED)
def test_a_confused_agent_is_no_agent(answer: bytes, nobody: Path) -> None:
    with served(nobody, lambda client: client.sendall(answer)):
        assert json.loads(run("ADD", configuration(nobody, ASKS)).out) == RESULT
    with served(nobody, lambda client: client.sendall(answer)):
        asked = configuration(nobody, cniVersion="1.1.0", failurePolicy="closed")
        assert run("STATUS", asked).error["code"] == 50
    with served(nobody, lambda client: client.sendall(answer)):
        assert run("DEL", configuration(nobody)).code == 0


def test_an_agent_that_never_answers_is_waited_for_once(nobody: Path, missed: Missed) -> None:
    enough = threading.Event()
    with served(nobody, lambda _: enough.wait(20) and None):
        done = run("ADD", configuration(nobody, ASKS))
        enough.set()
    assert (done.code, json.loads(done.out)) == (0, RESULT)
    assert missed.waiting() == 1


def test_an_answer_in_single_bytes_is_an_answer(nobody: Path) -> None:
    def slowly(client: socket.socket) -> None:
        for byte in Answer(1, b'{"code":100}').pack():
            client.sendall(bytes([byte]))

    with served(nobody, slowly):
        done = run("CHECK", configuration(nobody))
    assert (done.code, done.out) == (1, b'{"code":100}')


def test_nobody_has_to_listen_to_what_it_complains_about(nobody: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            stub(),
            input=configuration(nobody),
            env={"CNI_COMMAND": "ADD"},
            stdout=subprocess.PIPE,
            stderr=closed,
            check=False,
        )
    assert (done.returncode, json.loads(done.stdout)) == (0, RESULT)


def test_all_characters_of_utf8_are_text(nobody: Path) -> None:
    text = "".join(map(chr, [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]))
    stdin = json.dumps({"prevResult": {"x": text}, "agentSocket": str(nobody)}, ensure_ascii=False).encode()
    assert json.loads(run("ADD", stdin).out) == {"x": text}


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(
    previous=st.dictionaries(TEXT, JSON, max_size=4),
    more=st.dictionaries(TEXT, JSON, max_size=3),
    ascii_=st.booleans(),
)
@settings(QUIET, max_examples=60)
def test_any_result_is_cut_out_as_it_stands(
    tmp_path: Path, previous: object, more: dict[str, object], ascii_: bool
) -> None:
    members = more | {"prevResult": previous, "agentSocket": str(tmp_path / "none")}
    stdin = json.dumps(members, ensure_ascii=ascii_).encode()
    done = run("ADD", stdin)
    assert (done.code, done.out) == (0, json.dumps(previous, ensure_ascii=ascii_).encode())


@given(
    stdin=st.binary(max_size=60) | TEXT.map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()),
    cut=st.integers(0, 40),
)
@settings(QUIET, max_examples=100)
@example(stdin=b'{"a":"\\u12', cut=0)
@example(stdin=b'{"a":{}}', cut=2)
def test_it_reads_json_as_python_does(stdin: bytes, cut: int) -> None:
    stdin = stdin[: len(stdin) - cut] if cut < len(stdin) else stdin
    try:
        whole = isinstance(json.loads(stdin.decode("utf-8"), parse_constant=int), dict)
    except ValueError:
        whole = False
    done = run("STATUS", stdin)
    assert done.code == 0 if whole else done.error["code"] == 6
