"""What a runtime asks and what a pod's annotations ask for, read without a kernel; and both as bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.stub_runs import ANNOTATIONS, RESULT, STUBS

from ackward.model.bypass import Hazard
from ackward.model.scopes import BypassScope, RouteScope, SocketScope, WindowScope
from ackward.node import cni, requests, wire
from ackward.node.annotations import Asked, ours, wanted
from ackward.node.cni import CniError, Code, Command, parse, version_of
from ackward.node.wire import Answer, Malformed, Request

ALL = Asked("quickack", RouteScope(every=True))


def to(network: str) -> Asked:
    return Asked("quickack", RouteScope(to=network))


def ports(first: int, last: int) -> Asked:
    return Asked("nodelay", SocketScope(ports=(first, last)))


SENSE: list[tuple[dict[str, object], tuple[Asked, ...]]] = [
    ({}, ()),
    ({"app": "web", "quickack": "true"}, ()),
    *(
        ({"enable-quickack": yes}, (ALL,))
        for yes in ("1", "t", "T", "true", "TRUE", "True", "y", "yes", "YES", " yes ")
    ),
    *(({"enable-quickack": no}, ()) for no in ("", "0", "f", "false", "No", "n")),
    ({"ackward.io/quickack": "true"}, (ALL,)),
    ({"ackward.io/quickack": "10.0.0.0/8"}, (to("10.0.0.0/8"),)),
    ({"ackward.io/quickack": "10.0.0.0/8, fd00::/8"}, (to("10.0.0.0/8"), to("fd00::/8"))),
    ({"ackward.io/quickack": "10.0.0.1,10.0.0.1/32"}, (to("10.0.0.1/32"),)),
    ({"ackward.io/quickack": "10.0.0.0/8", "enable-quickack": "y"}, (ALL,)),
    ({"ackward.io/quickack": "false", "enable-quickack": "y"}, (ALL,)),
    ({"ackward.io/initcwnd": "40"}, (Asked("initcwnd", WindowScope(segments=40)),)),
    ({"ackward.io/nodelay": "true"}, (Asked("nodelay", SocketScope()),)),
    ({"ackward.io/nodelay": "8080"}, (ports(8080, 8080),)),
    ({"ackward.io/nodelay": "443, 80,8000-8100"}, (ports(80, 80), ports(443, 443), ports(8000, 8100))),
    ({"ackward.io/nodelay": "90-100,80-95,101"}, (ports(80, 101),)),
    ({"ackward.io/bypass": "false"}, ()),
    ({"ackward.io/bypass": "true"}, (Asked("bypass", BypassScope(ports=(1, 65535))),)),
    ({"ackward.io/bypass": "8080"}, (Asked("bypass", BypassScope(ports=(8080, 8080))),)),
    (
        {"ackward.io/bypass": "true", "ackward.io/bypass-accept": "splice, oob"},
        (Asked("bypass", BypassScope(ports=(1, 65535), accepted=(Hazard.OOB, Hazard.SPLICE))),),
    ),
    ({"ackward.io/bypass": "no", "ackward.io/bypass-accept": "splice"}, ()),
    ({"ackward.io/bypass": "8000-8010,8005"}, (Asked("bypass", BypassScope(ports=(8000, 8010))),)),
]


@pytest.mark.parametrize(("annotations", "requests"), SENSE)
def test_annotations_that_make_sense(annotations: dict[str, object], requests: tuple[Asked, ...]) -> None:
    found = wanted(annotations)
    assert (found.requests, found.complaints) == (requests, ())
    assert bool(found) is bool(requests)


NONSENSE = {
    "enable-quickack": ["2", "on", "ja", "true;", "10.0.0.0/8"],
    "ackward.io/quickack": ["10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8,", "all", ",".join(["10.0.0.0/8"] * 17)],
    "ackward.io/initcwnd": [
        "0",
        "-1",
        "1001",
        "1e3",
        "ten",
        "",
        "9" * 5000,
        "٣",
        "00000001099999",
        "0" * 20 + "40",
    ],
    "ackward.io/nodelay": ["70000", "5-4", "80;90", "http", "1-2-3", "0-9"],
    "ackward.io/bypass": ["maybe", "80,90", "70000"],
    "ackward.io/bypass-accept": ["", "true", "splice,everything"],
    "ackward.io/quikack": ["true"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_nonsense_is_a_complaint_and_the_rest_is_done(name: str, value: str) -> None:
    other = "ackward.io/quickack" if name == "enable-quickack" else "enable-quickack"
    found = wanted({name: value, other: "yes"})
    assert found.requests == (ALL,)
    assert len(found.complaints) == 1
    assert name in found.complaints[0]
    assert len(found.complaints[0]) < (200 if name != "ackward.io/bypass-accept" else 400)


def test_what_cannot_be_accepted_is_named_alone_and_what_can_is_listed() -> None:
    (complaint,) = wanted({"ackward.io/bypass": "80", "ackward.io/bypass-accept": "splice,nope"}).complaints
    assert complaint.startswith("ackward.io/bypass-accept: 'nope' cannot be accepted")
    assert complaint.endswith(",".join(Hazard))


def test_to_accept_something_for_no_bypass_is_complained_of() -> None:
    (complaint,) = wanted({"ackward.io/bypass-accept": "splice"}).complaints
    assert complaint == "ackward.io/bypass-accept: asks for nothing without ackward.io/bypass"


#: Nearly what a value may be: numbers with zeros before them, ports, networks, lists of these, words.
_DIGITS = st.tuples(st.integers(0, 12).map("0".__mul__), st.integers(0, 10**9).map(str)).map("".join)
_NETWORK = st.ip_addresses().flatmap(
    lambda one: st.sampled_from(("", "/0", "/8", "/32", "%1/64")).map(f"{one}".__add__)
)
_WORD = st.sampled_from(["true", "no", "splice", "oob", "", " 1 "])
_PART = _DIGITS | _NETWORK | _WORD | st.tuples(_DIGITS, _DIGITS).map("-".join)
LIKE_ANNOTATIONS = _PART | st.lists(_PART, min_size=1, max_size=20).map(",".join)


_VALUE = _DIGITS | LIKE_ANNOTATIONS | st.text() | st.none() | st.integers() | st.lists(st.text())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(NONSENSE), _VALUE)))
@settings(max_examples=400, deadline=None)
def test_nothing_that_a_pod_says_is_an_error(annotations: dict[str, object]) -> None:
    found = wanted(annotations)
    assert len(set(found.requests)) == len(found.requests)
    assert wanted(ours(annotations)) == found


def request(
    command: str, *, without: str = "", variables: Mapping[str, str] | None = None, **more: object
) -> Request:
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "abc",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;;nonsense",
        **(variables or {}),
    }
    environment.pop(without, None)
    members = {"cniVersion": "1.1.0", "name": "net", "prevResult": RESULT, **more}
    return Request(
        environment, json.dumps({name: value for name, value in members.items() if value is not ...}).encode()
    )


def test_a_request_that_makes_sense() -> None:
    found = parse(request("ADD", runtimeConfig={ANNOTATIONS: {"enable-quickack": "y"}}))
    assert found.command is Command.ADD
    assert (found.container_id, found.ifname, found.netns, found.network) == (
        "abc",
        "eth0",
        "/run/netns/pod",
        "net",
    )
    assert found.annotations == {"enable-quickack": "y"}
    assert found.args["K8S_POD_NAME"] == "web-0"
    assert not found.closed


@pytest.mark.parametrize(
    "config", [..., None, [], {"portMappings": []}, {ANNOTATIONS: None}, {ANNOTATIONS: "yes"}]
)
def test_no_annotations(config: object) -> None:
    assert parse(request("ADD", runtimeConfig=config)).annotations == {}


def test_what_each_command_needs() -> None:
    assert parse(request("DEL", without="CNI_NETNS", prevResult=...)).netns == ""
    assert (
        parse(request("STATUS", prevResult=..., variables={"CNI_CONTAINERID": "", "CNI_NETNS": ""})).command
        is Command.STATUS
    )
    listed = {cni.VALID_ATTACHMENTS: [{"containerID": "a", "ifname": "eth0"}]}
    assert parse(request("GC", **listed)).valid == {("a", "eth0")}
    assert parse(request("GC", **{cni.VALID_ATTACHMENTS: None})).valid == frozenset()  # Go's empty slice


REFUSED: dict[str, tuple[Code, Request]] = {
    "command": (Code.INVALID_ENVIRONMENT, request("VERSION")),
    "no command": (Code.INVALID_ENVIRONMENT, request("", without="CNI_COMMAND")),
    "no container": (Code.INVALID_ENVIRONMENT, request("ADD", without="CNI_CONTAINERID")),
    "no namespace": (Code.INVALID_ENVIRONMENT, request("ADD", without="CNI_NETNS")),
    "no interface": (Code.INVALID_ENVIRONMENT, request("DEL", without="CNI_IFNAME")),
    "path as container": (Code.INVALID_ENVIRONMENT, request("ADD", variables={"CNI_CONTAINERID": "../x"})),
    "path as interface": (Code.INVALID_ENVIRONMENT, request("DEL", variables={"CNI_IFNAME": "../../x"})),
    "long interface": (Code.INVALID_ENVIRONMENT, request("DEL", variables={"CNI_IFNAME": "e" * 16})),
    "long container": (Code.INVALID_ENVIRONMENT, request("DEL", variables={"CNI_CONTAINERID": "e" * 201})),
    "old": (Code.INCOMPATIBLE_VERSION, request("ADD", cniVersion="0.2.0")),
    "to come": (Code.INCOMPATIBLE_VERSION, request("ADD", cniVersion="2.0.0")),
    "no version": (Code.INCOMPATIBLE_VERSION, request("ADD", cniVersion=...)),
    "version of another type": (Code.INCOMPATIBLE_VERSION, request("ADD", cniVersion=[1])),
    "CHECK too early": (Code.INCOMPATIBLE_VERSION, request("CHECK", cniVersion="0.3.1")),
    "GC too early": (Code.INCOMPATIBLE_VERSION, request("GC", cniVersion="1.0.0")),
    "STATUS too early": (Code.INCOMPATIBLE_VERSION, request("STATUS", cniVersion="0.4.0")),
    "no result": (Code.INVALID_CONFIGURATION, request("ADD", prevResult=...)),
    "text as result": (Code.INVALID_CONFIGURATION, request("CHECK", prevResult="x")),
    "foreign result": (Code.INVALID_CONFIGURATION, request("ADD", prevResult={"ips": "10.0.0.1"})),
    "foreign elements": (Code.INVALID_CONFIGURATION, request("ADD", prevResult={"interfaces": ["eth0"]})),
    "policy": (Code.INVALID_CONFIGURATION, request("ADD", failurePolicy="ajar")),
    "GC without list": (Code.INVALID_CONFIGURATION, request("GC")),
    "GC with nonsense": (
        Code.INVALID_CONFIGURATION,
        request("GC", **{cni.VALID_ATTACHMENTS: [{"ifname": "eth0"}]}),
    ),
    "no JSON": (Code.UNDECODABLE, Request(request("ADD").environment, b"{")),
    "no text": (Code.UNDECODABLE, Request(request("ADD").environment, b'{"a":"\xff"}')),
    "no object": (Code.UNDECODABLE, Request(request("ADD").environment, b"[]")),
    "deep": (Code.UNDECODABLE, Request(request("ADD").environment, b'{"a":' + b"[" * 100_000)),
    "digits": (Code.UNDECODABLE, Request(request("ADD").environment, b'{"a":' + b"9" * 5000 + b"}")),
    "NaN": (Code.UNDECODABLE, Request(request("ADD").environment, b'{"a":NaN}')),
}


@pytest.mark.parametrize(("code", "asked"), REFUSED.values(), ids=REFUSED)
def test_requests_that_are_refused(code: Code, asked: Request) -> None:
    with pytest.raises(CniError) as caught:
        parse(asked)
    assert caught.value.code is code
    answer = caught.value.answer(version_of(asked))
    error = json.loads(answer.body)
    assert (answer.code, error["code"]) == (1, code)
    assert error["cniVersion"] in cni.VERSIONS
    assert error["msg"]


def test_half_a_character_is_no_reason_to_stop() -> None:
    halves = r'{"cniVersion":"1.0.0","name":"\ud83d","prevResult":{},"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"enable-quickack":"\ud83d"}}}'
    found = parse(
        Request(request("ADD", variables={"CNI_ARGS": "K8S_POD_NAME=\udcff"}).environment, halves.encode())
    )
    assert (found.network, found.args["K8S_POD_NAME"]) == ("?", "?")
    assert wanted(found.annotations).complaints == ("enable-quickack: '?' is neither yes nor no: write true",)
    with pytest.raises(CniError, match="UTF-8"):
        parse(request("ADD", variables={"CNI_NETNS": "/run/netns/\udcff"}))


def test_missing_variables_are_named() -> None:
    with pytest.raises(CniError, match="CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"):
        parse(Request({"CNI_COMMAND": "ADD"}, b"{}"))


@given(
    st.binary()
    | st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists).map(
        lambda x: json.dumps(x).encode()
    )
)
def test_no_configuration_is_more_than_an_error(data: bytes) -> None:
    for command in Command:
        try:
            parse(Request(request(command).environment, data))
        except CniError as error:
            assert error.answer(version_of(Request({}, data))).code == 1


@given(
    st.dictionaries(
        st.from_regex(r"CNI_[A-Z]{1,8}", fullmatch=True), st.text(st.characters(exclude_characters="\0"))
    ),
    st.binary(max_size=200),
)
def test_a_request_survives_the_wire(environment: dict[str, str], configuration: bytes) -> None:
    asked = Request(
        {name: value.encode("utf-8", "replace").decode() for name, value in environment.items()},
        configuration,
    )
    assert wire.unpack(asked.pack()) == asked


def test_requests_cut_or_with_more_behind_are_malformed() -> None:
    whole = request("ADD").pack()
    assert wire.unpack(whole) == request("ADD")
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            wire.unpack(whole[:end])
    with pytest.raises(Malformed):
        wire.unpack(whole + b"x")
    with pytest.raises(Malformed):
        wire.unpack(wire.HEADER.pack(wire.PROTOCOL, 4, 0) + b"oops")
    for header in (
        wire.HEADER.pack(b"ackcni/2", 0, 0),
        wire.HEADER.pack(wire.PROTOCOL, wire.MOST_ENVIRONMENT + 1, 0),
        wire.HEADER.pack(wire.PROTOCOL, 0, wire.MOST_CONFIGURATION + 1),
    ):
        with pytest.raises(Malformed):
            wire.lengths(header)


def test_variables_need_not_be_utf8() -> None:
    asked = wire.request(b"CNI_ARGS=\xff\xfe\0", b"")
    assert asked.pack().endswith(b"CNI_ARGS=\xff\xfe\0")


def test_the_stub_and_the_agent_say_the_same() -> None:
    """The stub is C and has these by itself."""
    source = "".join(path.read_text(encoding="ascii") for path in sorted(STUBS.glob("*.[ch]")))
    assert re.findall(r'"\\"([0-9.]+)\\""', source)[: len(cni.VERSIONS)] == list(cni.VERSIONS)
    commands = re.search(r"COMMANDS\[\] = \{([^}]*)\}", source)
    assert commands
    assert re.findall(r'"([A-Z]+)"', commands[1]) == [*Command, "VERSION"]
    assert f'"{wire.PROTOCOL.decode()}"' in source
    assert f"MOST_CONFIGURATION = {wire.MOST_CONFIGURATION >> 20} << 20" in source
    assert f"MOST_ENVIRONMENT = {wire.MOST_ENVIRONMENT >> 10} << 10" in source
    assert f"AGENT_MS = {requests.DEADLINE_S * 1000:.0f} " in source


def test_an_answer_is_what_the_stub_takes() -> None:
    assert Answer(1, b"{}").pack() == b"ackcni/1" + bytes([0, 0, 0, 1, 0, 0, 0, 2]) + b"{}"
