"""The client of container runtimes against servers that are old, wrong, slow or not there at all."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from ackward.errors import PrivilegeMissing, Unavailable, UnknownName
from ackward.kernel import cri, grpc, protobuf

#: Method -> message, or the number of a failure.
Answers = Callable[[str, bytes], bytes | int]


def sandbox(
    name: str, *, number: int = 1, state: int = 0, annotations: dict[str, str] | None = None
) -> bytes:
    """An item of ListPodSandboxResponse."""
    metadata = protobuf.encode({1: name, 2: f"uid-{name}", 3: "shop", 4: 0})
    return protobuf.encode(
        {1: f"id-{number}", 2: metadata, 3: state, 4: number, 6: annotations or {}, 99: "later"}
    )


#: A namespace by a path that the runtime made, as far as this process can see.
HERE = [{"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}]


def lists(*items: bytes, namespaces: object = HERE, mode: int = 0) -> Answers:
    """A runtime that lists these sandboxes, all of which are this process; ``mode`` is their NamespaceMode."""

    def answer(method: str, request: bytes) -> bytes | int:
        match method.rpartition("/")[2]:
            case "ListPodSandbox":
                return protobuf.encode({1: list(items)})
            case "PodSandboxStatus":
                info = {"pid": os.getpid(), "runtimeSpec": {"linux": {"namespaces": namespaces}}}
                status = {6: protobuf.encode({1: protobuf.encode({2: protobuf.encode({1: mode})})})}
                return protobuf.encode({1: protobuf.encode(status), 2: {"info": json.dumps(info)}})
            case "ListContainers":
                return b""
        return grpc.UNIMPLEMENTED

    return answer


class Speaker:
    """gRPC as a server speaks it, on one connection."""

    def __init__(self, client: socket.socket, answers: Answers) -> None:
        self._client = client
        self._answers = answers
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._http = h2.connection.H2Connection(config)
        self._methods: dict[int, str] = {}
        self._requests: dict[int, bytes] = {}
        self._unsent: dict[int, bytes] = {}

    def run(self) -> None:
        self._http.initiate_connection()
        self._client.sendall(self._http.data_to_send())
        while data := self._client.recv(1 << 16):
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._methods[event.stream_id] = dict(event.headers)[":path"]
                elif isinstance(event, h2.events.DataReceived):
                    self._requests[event.stream_id] = event.data[5:]
                elif isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    self._begin(stream, self._answers(self._methods[stream], self._requests[stream]))
            for stream in list(self._unsent):
                self._go_on(stream)
            self._client.sendall(self._http.data_to_send())

    def _begin(self, stream: int, answer: bytes | int) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if isinstance(answer, int):  # a failure is trailers only, its words percent-encoded
            failure = [("grpc-status", str(answer)), ("grpc-message", "no%20such")]
            self._http.send_headers(stream, [*head, *failure], end_stream=True)
            return
        self._http.send_headers(stream, head)
        self._unsent[stream] = b"\0" + len(answer).to_bytes(4, "big") + answer

    def _go_on(self, stream: int) -> None:
        """As much as the client's windows allow, and the trailers after the last of it."""
        body = self._unsent.pop(stream)
        while body and (window := self._http.local_flow_control_window(stream)):
            size = min(window, self._http.max_outbound_frame_size)
            self._http.send_data(stream, body[:size])
            body = body[size:]
        if body:
            self._unsent[stream] = body
        else:
            self._http.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@contextmanager
def listening(path: Path, handle: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A server on a unix socket; each connection is handled in turn."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def body() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # the test is over
                with client:
                    try:
                        handle(client)
                    except OSError:
                        continue  # the client went away

        thread = threading.Thread(target=body)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def serving(path: Path, answers: Answers) -> Iterator[Path]:
    with listening(path, lambda client: Speaker(client, answers).run()) as place:
        yield place


def only(monkeypatch, *places: Path) -> None:
    """These are the sockets where runtimes listen."""
    monkeypatch.delenv(cri.ENVIRONMENT, raising=False)
    monkeypatch.setattr(cri, "ENDPOINTS", places)


def test_lists_what_runs_and_only_that(tmp_path, monkeypatch):
    answers = lists(
        sandbox("web-0", annotations={"enable-quickack": "true"}), sandbox("old", number=2, state=1)
    )
    with serving(tmp_path / "s", answers) as place:
        only(monkeypatch, place)
        (found,) = cri.running().sandboxes
    assert (found.pod, found.uid, found.id, found.endpoint) == ("shop/web-0", "uid-web-0", "id-1", place)
    assert found.annotations == {"enable-quickack": "true"}


def test_of_several_attempts_at_a_pod_the_newest_counts(tmp_path, monkeypatch):
    with serving(tmp_path / "s", lists(sandbox("web-0", number=1), sandbox("web-0", number=7))) as place:
        only(monkeypatch, place)
        pod = cri.pod("shop/web-0")
    assert pod.sandbox.id == "id-7"
    assert pod.pid == os.getpid()
    assert pod.netns is not None
    assert pod.netns.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino


@pytest.mark.parametrize(
    "namespaces", [None, [], [{"type": "network"}], [{"type": "network", "path": "/no/such"}]]
)
def test_a_pid_that_is_somebody_else_here_leads_into_no_namespace(tmp_path, monkeypatch, namespaces):
    """In a container the runtime's PIDs mean other processes, or none: entering theirs would change the wrong pod."""
    with serving(tmp_path / "s", lists(sandbox("web-0"), namespaces=namespaces)) as place:
        only(monkeypatch, place)
        with pytest.raises(Unavailable, match="cannot be seen from here"):
            cri.pod("shop/web-0")


def test_a_plain_file_where_the_namespace_should_be_is_none(tmp_path, monkeypatch):
    (tmp_path / "cni-1").touch()  # what a mount of /run/netns that does not propagate shows
    namespaces = [{"type": "network", "path": str(tmp_path / "cni-1")}]
    with serving(tmp_path / "s", lists(sandbox("web-0"), namespaces=namespaces)) as place:
        only(monkeypatch, place)
        with pytest.raises(Unavailable, match=r"cni-1, process"):
            cri.pod("shop/web-0")


def test_a_pod_on_the_node_s_network_has_no_namespace_of_its_own(tmp_path, monkeypatch):
    with serving(tmp_path / "s", lists(sandbox("web-0"), namespaces=[], mode=2)) as place:
        only(monkeypatch, place)
        assert cri.pod("shop/web-0").netns is None


def test_an_old_runtime_is_asked_in_its_own_version(tmp_path, monkeypatch):
    asked = []
    answer = lists(sandbox("web-0"))

    def old(method: str, request: bytes) -> bytes | int:
        asked.append(method)
        return answer(method, request) if "v1alpha2" in method else grpc.UNIMPLEMENTED

    with serving(tmp_path / "s", old) as place:
        with cri.Runtime(place) as runtime:
            assert runtime.sandboxes() == runtime.sandboxes()
    listed = [
        f"/runtime.{version}.RuntimeService/ListPodSandbox" for version in ("v1", "v1alpha2", "v1alpha2")
    ]
    assert asked == listed


def test_several_runtimes_are_asked_and_one_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "stale").touch()
    with (
        serving(tmp_path / "a", lists(sandbox("web-0"))) as a,
        serving(tmp_path / "b", lists(sandbox("db-0"))) as b,
    ):
        only(monkeypatch, a, b, tmp_path / "stale", tmp_path / "absent")
        here = cri.running()
        assert {one.pod: one.endpoint for one in here.sandboxes} == {"shop/web-0": a, "shop/db-0": b}
        (failure,) = here.unanswered
        assert "stale cannot be asked: Connection refused" in failure.missing
        with pytest.raises(UnknownName, match="stale cannot be asked"):
            cri.pod("shop/gone")


def test_a_large_answer_passes_the_windows_of_http2(tmp_path):
    """Larger than the first window of 64 KiB: the client has to grant more, or the server waits for ever."""
    big = [sandbox(f"web-{number}", number=number, annotations={"note": "x" * 900}) for number in range(60)]
    with serving(tmp_path / "s", lists(*big)) as place, cri.Runtime(place) as runtime:
        assert len(runtime.sandboxes()) == len(runtime.sandboxes()) == 60


def test_docker_s_containerd_has_no_such_interface(tmp_path):
    with serving(tmp_path / "s", lambda *_: grpc.UNIMPLEMENTED) as place, cri.Runtime(place) as runtime:
        with pytest.raises(Unavailable, match="serves no Container Runtime Interface"):
            runtime.sandboxes()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, "closed the connection"),
        (b"\0\0\1\1\4\0\0\0\1\xff", "does not speak HTTP/2"),
        (b"\0\0\x00\x04\0\0\0\0\0" + b"\0\0\x08\x07\0\0\0\0\0" + b"\0" * 8, "ended the connection"),
    ],
    ids=["nothing", "http1", "headers", "goaway"],
)
def test_what_is_no_runtime_is_said_in_words(tmp_path, said, words):
    def handle(client: socket.socket) -> None:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass  # or the client would find a broken pipe, sometimes

    with listening(tmp_path / "s", handle) as place, cri.Runtime(place) as runtime:
        with pytest.raises(Unavailable, match=words):
            runtime.sandboxes()


def test_no_answer_is_waited_for_only_so_long(tmp_path):
    silent = threading.Event()
    with listening(tmp_path / "s", lambda _: silent.wait(10) and None) as place:
        with grpc.Channel(place, seconds=0.2) as channel, pytest.raises(grpc.CallFailed) as failed:
            channel.call("/runtime.v1.RuntimeService/Version", b"")
        silent.set()
    assert failed.value.status == grpc.DEADLINE_EXCEEDED


def test_a_pod_that_ends_meanwhile_has_ended(tmp_path, monkeypatch):
    listed = lists(sandbox("web-0"))

    def ends(method: str, request: bytes) -> bytes | int:
        return listed(method, request) if method.endswith("ListPodSandbox") else grpc.NOT_FOUND

    def stopped(method: str, request: bytes) -> bytes | int:
        return (
            listed(method, request)
            if method.endswith("ListPodSandbox")
            else protobuf.encode({2: {"info": "[]"}})
        )

    for name, answers in (("a", ends), ("b", stopped)):
        with serving(tmp_path / name, answers) as place:
            only(monkeypatch, place)
            with pytest.raises(UnknownName):
                cri.pod("shop/web-0")


@pytest.mark.parametrize(
    "broken", [b"\xff\xff", protobuf.encode({1: b"\xff"}), protobuf.encode({1: sandbox("x")[:-1]})]
)
def test_broken_messages_are_no_traceback_at_any_depth(tmp_path, monkeypatch, broken):
    listed = lists(sandbox("web-0"))
    for name, at in (("a", "ListPodSandbox"), ("b", "PodSandboxStatus"), ("c", "ListContainers")):

        def answer(method: str, request: bytes, at: str = at) -> bytes | int:
            return broken if method.endswith(at) else listed(method, request)

        with serving(tmp_path / name, answer) as place:
            only(monkeypatch, place)
            with pytest.raises((Unavailable, UnknownName), match=r"its answer is broken|has ended"):
                cri.pod("shop/web-0")


def test_nothing_to_ask(monkeypatch, tmp_path):
    only(monkeypatch)
    with pytest.raises(Unavailable, match="no container runtime was found"):
        cri.running()
    monkeypatch.setenv(cri.ENVIRONMENT, f"unix://{tmp_path}/named.sock")
    with pytest.raises(Unavailable, match=r"named\.sock cannot be asked: No such file"):
        cri.running()


@pytest.mark.skipif(os.geteuid() != 0, reason="probe failed: not root, so no other user can be tried")
def test_without_the_right_to_ask_it_says_so(tmp_path):
    with serving(tmp_path / "s", lists()) as place:
        place.chmod(0o600)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                cri.Runtime(place)
            except PrivilegeMissing as error:
                os._exit(0 if "may not be asked" in str(error) and "sudo" in str(error) else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
