"""Our entry in a list of plugins: nothing but it changes, and taking it out gives the very bytes back."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.stub_runs import run

from ackward.errors import Refused
from ackward.node.cni import VERSIONS
from ackward.node.conflist import MARK, TYPE, added, chosen, entry, parse, removed

OURS = entry("/run/ackward/node/agent.sock", "open")
# As Azure's installer writes it: no space after a colon, and no end of line.
AZURE = b'{\n   "cniVersion":"0.3.0",\n   "name":"azure",\n   "plugins":[\n      {\n         "type":"azure-vnet"\n      },\n      {\n         "type":"portmap",\n         "capabilities":{\n            "portMappings":true\n         },\n         "snat":true\n      }\n   ]\n}'

SPACE = st.text(" \t\n\r", max_size=3)
NAMES = st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    """A list of plugins with any members around them, any spacing, and escapes or none."""
    ascii_only = draw(st.booleans())

    def member(name: str, value: str) -> str:
        return f"{draw(SPACE)}{json.dumps(name)}{draw(SPACE)}:{draw(SPACE)}{value}{draw(SPACE)}"

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=draw(st.sampled_from([None, 2, "\t"])))

    types = draw(st.lists(NAMES.filter(lambda name: name not in ("", TYPE)), min_size=1, max_size=3))
    extra = {
        name: value
        for name, value in draw(st.dictionaries(NAMES, VALUES, max_size=2)).items()
        if name != "type"
    }
    plugins = [f"{draw(SPACE)}{text({'type': kind, **extra})}{draw(SPACE)}" for kind in types]
    members = [
        member("cniVersion", json.dumps(draw(st.sampled_from(VERSIONS)))),
        member("plugins", f"[{','.join(plugins)}]"),
    ]
    members += [
        member(name, text(value))
        for name, value in draw(st.dictionaries(NAMES, VALUES, max_size=3)).items()
        if name not in ("cniVersion", "plugins")
    ]
    return f"{draw(SPACE)}{{{','.join(draw(st.permutations(members)))}}}{draw(SPACE)}".encode(
        errors="replace"
    )


@given(lists())
def test_only_our_entry_is_added_and_taking_it_out_gives_the_same_bytes(text: bytes) -> None:
    after = added(parse("a.conflist", text), OURS)
    was, now = json.loads(text), json.loads(after)
    assert now["plugins"] == [*was["plugins"], OURS]
    assert {**now, "plugins": None} == {**was, "plugins": None}
    assert list(now) == list(was)
    again = parse("a.conflist", after)
    assert added(again, OURS) == after
    assert removed(again) == text


@given(st.text(max_size=12), st.integers(0, 120))
@example('run"dir', 0)
@example("run\\dir", 0)
@example("caf\u00e9", 0)
@example("a&b", 0)
@example("a b~c", 0)
@settings(deadline=None, max_examples=60)
def test_a_socket_that_an_entry_names_is_one_that_the_stub_finds(name: str, more: int) -> None:
    """Whatever the runtime's encoder escapes: Go's does so with <, > and & too. What it cannot find is refused."""
    socket = f"/ackward-nowhere/{name}{'x' * more}/agent.sock"
    try:
        wanted = entry(socket, "open")
    except Refused:
        return
    text = json.dumps(wanted | {"cniVersion": "1.1.0"})
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    done = run("STATUS", text.encode())
    assert "does not answer" in done.err
    assert "no plain absolute path" not in done.err


@pytest.mark.parametrize("name", ['run"dir', "run\\dir", "caf\u00e9", "a&b", "x" * 100, "a\nb"])
def test_a_socket_that_the_stub_could_not_find_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="no path for the agent's socket"):
        entry(f"/run/{name}/agent.sock", "open")


def test_azures_list_keeps_its_way_of_writing() -> None:
    after = added(parse("10-azure.conflist", AZURE), OURS)
    assert after.startswith(AZURE[: AZURE.index(b"\n   ]")])
    assert f',\n      {{"type": "{TYPE}"'.encode() in after
    assert removed(parse("10-azure.conflist", after)) == AZURE


@pytest.mark.parametrize("end", range(len(AZURE)))
def test_a_half_written_list_is_refused_wherever_it_ends(end: int) -> None:
    with pytest.raises(Refused, match="no list of plugins"):
        parse("10-azure.conflist", AZURE[:end])


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b"{} ",
        b"null",
        b'{"plugins": []}',
        b'{"plugins": {}}',
        b'{"plugins": [1]}',
        b'{"plugins": [{"name": "no type"}]}',
        b'{"plugins": [{"type": "a"}], "plugins": [{"type": "b"}]}',
        b'{"plugins": [{"type": "a", "x": NaN}]}',
        b'{"plugins": [{"type": "a"}]} x',
        b'{"plugins": [{"type": "a"}],}',
        b'{"plugins": [{"type": "a"},]}',
        b"{'plugins': []}",
        b'\xef\xbb\xbf{"plugins": [{"type": "a"}]}',
        b'{"plugins": [{"type": "\xff"}]}',
        b'{"x":' + b"[" * 100_000,
        b" " * (1 << 20) + b"{}",
    ],
)
def test_what_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(Refused, match="no list of plugins"):
        parse("a.conflist", text)


@pytest.mark.parametrize("name", ["10-flannel.conf", "10-bridge.json"])
def test_a_single_plugin_is_not_made_into_a_list(name: str) -> None:
    with pytest.raises(Refused, match="a single plugin"):
        parse(name, b'{"cniVersion": "0.3.1", "name": "n", "type": "bridge"}')


@pytest.mark.parametrize("version", ["0.2.0", "2.0.0", "", None, 1])
def test_a_list_whose_version_we_do_not_speak_is_left_alone(version: object) -> None:
    text = json.dumps({"cniVersion": version, "name": "n", "plugins": [{"type": "bridge"}]}).encode()
    with pytest.raises(Refused, match="does not speak"):
        added(parse("a.conflist", text), OURS)


@pytest.mark.parametrize("foreign", [{"type": TYPE}, {"type": TYPE, MARK[0]: "somebody"}])
def test_somebody_elses_entry_of_our_name_is_neither_changed_nor_removed(foreign: dict[str, str]) -> None:
    text = json.dumps({"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}, foreign]}).encode()
    for change in (lambda found: added(found, OURS), removed):
        with pytest.raises(Refused, match="did not make"):
            change(parse("a.conflist", text))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_file_says_it_is_a_list_or_refused(text: bytes) -> None:
    with suppress(Refused):
        parse("a.conflist", text)


@given(st.data())
def test_a_damaged_list_is_a_list_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(AZURE) - 1))
    damaged = AZURE[:at] + data.draw(st.binary(max_size=3)) + AZURE[at + data.draw(st.integers(0, 4)) :]
    try:
        found = parse("a.conflist", damaged)
        after = added(found, OURS)
    except Refused:
        return
    assert json.loads(after)["plugins"][:-1] == json.loads(damaged)["plugins"]


def with_plugins(*plugins: object) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", "plugins": plugins}).encode()


def test_an_entry_of_another_setting_is_replaced_where_it_stands() -> None:
    istio, old = {"type": "istio-cni"}, entry("/run/old.sock", "closed")
    after = added(parse("a.conflist", with_plugins({"type": "ptp"}, old, istio)), OURS)
    assert json.loads(after)["plugins"] == [{"type": "ptp"}, OURS, istio]


def test_in_the_first_place_it_has_no_result_to_pass_on_and_moves_to_the_end() -> None:
    after = added(parse("a.conflist", with_plugins(OURS, {"type": "ptp"})), OURS)
    assert json.loads(after)["plugins"] == [{"type": "ptp"}, OURS]


def test_alone_it_cannot_be_taken_out() -> None:
    with pytest.raises(Refused, match="no entry but ours"):
        removed(parse("a.conflist", with_plugins(OURS)))


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ([], None),
        (["README", "x.conflist.bak", ".10-a.conflist.3f.ackward-partial"], None),
        (["87-podman.conflist", "10-azure.conflist"], "10-azure.conflist"),
        (["10-b.conflist", "10-a.conf", "10-c.json"], "10-a.conf"),
        (["a.conflist", "B.conflist"], "B.conflist"),
        (["z.conflist", ".z.conflist"], ".z.conflist"),
        (["\u00e9.conflist", "z.conflist"], "z.conflist"),
    ],
)
def test_the_file_that_the_runtime_takes_is_the_first_in_byte_order(
    names: list[str], first: str | None
) -> None:
    assert chosen(names) == first
