"""gateway.toml: what is good, what is not, and that each wrong field is named with its path."""

from __future__ import annotations

import os
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from ackward.errors import Refused, UsageError
from ackward.gateway.assembling import assemble
from ackward.gateway.config import Endpoint, Gateway, Listen, Peer, check, load, load_keys, with_new_keys
from ackward.gateway.keys import make_key, read_key
from ackward.lab import ocean_ways

DOCS = Path(__file__).parents[2] / "docs/gateway.md"
ENTRY = """
[[listen]]
address = "0.0.0.0:443"
target = "app.example:443"
via = "blr"
[peer.blr]
address = "[2001:db8::7]:4433"
keys = ["blr.key"]
"""


def checked(text):
    return check(tomllib.loads(text), Path("/etc/ackward/gateway.toml"))


def test_an_entry_has_every_step_on():
    gateway = checked(ENTRY)
    peer = gateway.peers["blr"]
    assert all(gateway.steps.model_dump().values())
    assert gateway.listen[0].answer == "optimistic"
    assert str(peer.address) == "[2001:db8::7]:4433"
    assert peer.keys == (Path("/etc/ackward/blr.key"),), "beside the configuration"
    assert not peer.allow.permits(ip_address("10.0.0.1"), 443), "deny by default"


def test_clients_addresses_are_kept_where_answers_to_them_come_back():
    text = TRANSPARENT + "keep_client = true\nreturns = { '10.1.0.0/16' = 'eth1' }"
    [listener] = assemble(checked(text), {}, {}).listeners
    assert listener.returns == (("10.1.0.0/16", "eth1"),)


def test_each_step_can_be_switched_off():
    for step in ("early", "pool", "window", "splice"):
        steps = checked(ENTRY + f"[steps]\n{step} = false\n").steps.model_dump()
        assert [name for name, on in steps.items() if not on] == [step]


def listening(address):
    return f"[[listen]]\naddress = '{address}'\ntarget = '192.0.2.1:1'\n"


TRANSPARENT = "[[listen]]\ntransparent = '10.0.0.0/8'\ninterface = 'eth0'\n"
WRONG = [
    ("", "nothing to do"),
    ("nam = 1\n" + ENTRY, "nam: there is no such field"),
    (ENTRY.replace('"0.0.0.0:443"', '"example.org:443"'), "listen.0.address: 'example.org' is no address"),
    (ENTRY.replace('"app.example:443"', '"app.example"'), "listen.0.target: 'app.example' is no HOST:PORT"),
    (
        ENTRY.replace('"app.example:443"', '"a b:443"'),
        "listen.0.target: 'a b' is no address and no host name",
    ),
    (ENTRY.replace('"app.example:443"', '"app.example:70000"'), "listen.0.target: '70000' is no port"),
    (ENTRY.replace('via = "blr"', 'via = "nowhere"'), "listen.0.via: there is no [peer.nowhere]"),
    (ENTRY + "[steps]\nearly = 1", "steps.early"),
    (ENTRY.replace('via = "blr"', "ports = [80]"), "listen.0: keep_client and ports belong to transparent"),
    (TRANSPARENT + "keep_client = true", "listen.0: returns belongs to keep_client"),
    (TRANSPARENT + "returns = { '10.1.0.0/16' = 'eth1' }", "listen.0: returns belongs to keep_client"),
    ('[[listen]]\ntransparent = "10.0.0.0/8"', "listen.0: transparent needs the interface"),
    ('[[listen]]\ntransparent = "10.0.0.1/8"\ninterface = "eth0"', "listen.0.transparent"),
    (
        "[exit]\naddress = '0.0.0.0:1'\n[peer.a]\nkeys = ['a']",
        "exit.networks: say where the entries connect from",
    ),
    ("[exit]\naddress = '0.0.0.0:1'\nreturns = { '10.0.0.1/8' = 'eth1' }", "exit.returns"),
    (ENTRY.replace('via = "blr"', 'answer = "fast"'), "listen.0.answer"),
    (
        ENTRY.replace('via = "blr"', 'transparent = "10.0.0.0/8"'),
        "listen.0: give either address and target, or",
    ),
    (ENTRY.replace('target = "app.example:443"', ""), "listen.0: address needs a target"),
    (ENTRY.replace('"blr.key"', ""), "peer.blr.keys"),
    (ENTRY + "pool = { least = 9, most = 3 }", "peer.blr.pool: least (9) is above most (3)"),
    (ENTRY + "pool = 3", "peer.blr.pool"),
    ("initial_window = 0\n" + ENTRY, "initial_window"),
    (ENTRY + 'allow = ["10.0.0.1/8:80"]', "peer.blr.allow: '10.0.0.1/8:80': 10.0.0.1/8 has host bits set"),
    (ENTRY + 'allow = "10.0.0.0/8:80"', "peer.blr.allow: a list such as"),
    (ENTRY + 'congestion = "; reboot"', "peer.blr.congestion"),
    (ENTRY + "mss = 40", "peer.blr.mss"),
    (ENTRY + "mss = 1200\nmptcp = true", "peer.blr: mss is for one path"),
    (ENTRY + "key = 'abcdef'", "peer.blr.key: there is no such field"),
    (ENTRY + "[limits]\nconnect = 0", "limits.connect"),
    (ENTRY + "[limits]\nconnect = nan", "limits.connect"),
    (ENTRY + "[limits]\nconnections = 1e99", "limits.connections"),
    (ENTRY + "[limits]\nunacknowledged = 0", "limits.unacknowledged"),
    ("[exit]\naddress = '0.0.0.0:4433'", "exit: without a [peer.NAME]"),
    ("workers = 0\n" + ENTRY, "workers"),
    ("name = '../../x'\n" + ENTRY, "name"),
    ("workers = 65\n" + ENTRY, "workers"),
    (ENTRY + listening("0.0.0.0:443"), "listen.1.address: 0.0.0.0:443 is taken already, by listen.0.address"),
    (
        ENTRY + listening("10.0.0.1:443"),
        "listen.1.address: 10.0.0.1:443 is taken already, by listen.0.address (0.0.0.0",
    ),
    (listening("[::1]:9") + listening("[0::1]:9"), "listen.1.address: [0::1]:9 is taken already"),
    (
        ENTRY + "[exit]\naddress = '0.0.0.0:443'\nnetworks = ['10.0.0.0/8']",
        "exit.address: 0.0.0.0:443 is taken already, by listen.0.address",
    ),
    (ENTRY + "[metrics]\naddress = '127.0.0.1:443'", "metrics.address: 127.0.0.1:443 is taken already"),
    (
        TRANSPARENT + TRANSPARENT.replace("10.0.0.0/8", "10.9.0.0/16"),
        "listen.1.transparent: 10.9.0.0/16 at eth0 overlaps listen.0.transparent (10.0.0.0/8): divide the networks, or",
    ),
    (
        f"{TRANSPARENT}ports = ['80-90']\n{TRANSPARENT}ports = ['443', '90']",
        "listen.1.transparent: 10.0.0.0/8 at eth0 overlaps listen.0.transparent (10.0.0.0/8)",
    ),
    (
        "".join(listening(f"10.0.0.1:{port}") for port in range(1, 66)),
        "listen: 65 listeners and ranges of ports",
    ),
    (
        f"{TRANSPARENT}ports = {[str(port) for port in range(1, 66)]}",
        "listen: 65 listeners and ranges of ports",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_field_is_named_with_its_path(text, said):
    with pytest.raises(UsageError) as caught:
        checked(text)
    assert said in str(caught.value)
    assert "/etc/ackward/gateway.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENTRY + "[buffers]\nnear = '2 MB'", "buffers.near: a whole number of bytes is due (given: '2 MB')"),
        (ENTRY + "mss = 40", "peer.blr.mss: a number of bytes of at least 88 is due (given: 40)"),
        (ENTRY + "[limits]\ndrain = -1", "limits.drain: a number of seconds above 0.0 is due (given: -1)"),
        (ENTRY + "[steps]\nearly = 1", "steps.early: true or false is due (given: 1)"),
        (ENTRY.replace('["blr.key"]', '"blr.key"'), 'peer.blr.keys: a list, such as ["one", "two"], is due'),
        (ENTRY.replace('keys = ["blr.key"]', ""), "peer.blr.keys: this field is needed"),
        (
            ENTRY.replace("via", 'answer = "fast"\nvia'),
            "answer: 'optimistic' or 'faithful' is due (given: 'fast')",
        ),
        (
            '[[listen]]\ntransparent = "10.0.0.1/8"\ninterface = "eth0"',
            "listen.0.transparent: a network such as 10.1.0.0/16, without host bits, is due (given: '10.0.0.1/8')",
        ),
        (ENTRY + "pool = 3", "peer.blr.pool: a table is due"),
        ("nam = 1\n" + ENTRY, "nam: there is no such field; did you mean name? (given: 1)"),
        (ENTRY.replace("target", "tragte"), "listen.0.tragte: there is no such field; did you mean target?"),
        (ENTRY + "pool = { leest = 3 }", "peer.blr.pool.leest: there is no such field; did you mean least?"),
    ],
)
def test_what_is_due_is_said_in_words_of_the_field(text, said):
    with pytest.raises(UsageError) as caught:
        checked(text)
    assert said in caught.value.missing
    assert "Input should" not in caught.value.missing


def test_each_wrong_field_has_a_line():
    with pytest.raises(UsageError) as caught:
        checked("workers = 0\nnam = 1\n" + ENTRY)
    assert caught.value.missing.splitlines() == [
        "/etc/ackward/gateway.toml:",
        "  workers: a number of at least 1 is due (given: 0)",
        "  nam: there is no such field; did you mean name? (given: 1)",
    ]


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        checked("workers = 0\nname = ''\n" + ENTRY.replace('"0.0.0.0:443"', '"443"'))
    for field in ("workers", "name", "listen.0.address"):
        assert field in str(caught.value)


def test_all_that_does_not_fit_together_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        checked(
            ENTRY.replace('via = "blr"', 'via = "x"')
            + listening("0.0.0.0:443")
            + "[exit]\naddress = '[::]:1'"
        )
    for field in ("listen.0.via", "listen.1.address", "exit.networks"):
        assert field in str(caught.value)


def test_addresses_that_do_not_overlap_stand_side_by_side():
    places = ("10.0.0.1:443", "10.0.0.2:443", "10.0.0.1:80", "[::]:443", "[::]:80")
    gateway = checked("".join(map(listening, places)))
    assert [str(listen.address) for listen in gateway.listen] == list(places)


@pytest.mark.parametrize("other", [
    TRANSPARENT.replace("10.0.0.0/8", "11.0.0.0/8"),
    TRANSPARENT.replace("10.0.0.0/8", "::/0"),
    TRANSPARENT.replace("eth0", "eth1"),
    TRANSPARENT + "ports = ['81-443']",
])  # fmt: skip
def test_transparent_listeners_that_no_connection_can_be_for_both_of_stand_side_by_side(other):
    assert len(checked(f"{TRANSPARENT}ports = ['80', '8000-8099']\n{other}").listen) == 2


def test_as_many_listeners_as_the_kernel_is_told_of():
    assert len(checked("".join(listening(f"10.0.0.1:{port}") for port in range(1, 65))).listen) == 64


@pytest.mark.parametrize(("content", "said"), [
    (b"[[listen", "is no TOML"),
    (b"\xff\xfe", "is no TOML"),
    (b"#" * (1 << 20) + b"#", "longer than"),
    (b"listen = 3", "listen"),
    (b"peer = []", "peer"),
])  # fmt: skip
def test_a_file_that_is_no_configuration(tmp_path, content, said):
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert said in str(caught.value)


def test_a_missing_file_or_a_directory(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load(path)


def leaves(model, *path):
    """The path of every field that holds a value of its own."""
    for name, field in model.model_fields.items():
        place = (*path, field.alias or name)
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if is_part(one)]
        if is_part(field.annotation) or (inner and type(None) in get_args(field.annotation)):
            yield from leaves(inner[0], *place)
        elif not inner:
            yield place


def is_part(kind):
    return isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Endpoint


PARTS = [
    *leaves(Gateway),
    *(path for path in leaves(Listen, "listen", 0)),
    *(path for path in leaves(Peer, "peer", "blr")),
]


@pytest.mark.parametrize("path", PARTS, ids=lambda path: ".".join(map(str, path)))
def test_every_field_is_named_when_its_value_is_of_no_use(path):
    given = {"listen": [{}], "peer": {"blr": {"keys": ["k"]}}, "exit": {"address": "0.0.0.0:1"}}
    place = given
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[path[-1]] = [[{}]]
    with pytest.raises(UsageError) as caught:
        check(given, Path("gateway.toml"))
    assert ".".join(map(str, path)) in str(caught.value)


def test_the_fields_are_all_of_them():
    assert len(PARTS) == 45
    for path in (("limits", "drain"), ("listen", 0, "via"), ("peer", "blr", "pool", "most"), ("exit", "mss")):
        assert path in PARTS


# What SIGHUP reads


def test_new_keys_are_taken_and_what_else_changed_is_named():
    old = checked(ENTRY)
    new = checked("workers = 2\n" + ENTRY.replace('"blr.key"', '"new.key", "blr.key"'))
    changed, others = with_new_keys(old, new)
    assert [path.name for path in changed.peers["blr"].keys] == ["new.key", "blr.key"]
    assert others == ["workers"]
    assert changed.workers == 1
    same, none = with_new_keys(old, checked(ENTRY))
    assert (same, none) == (old, [])


@pytest.mark.parametrize(
    "text", [ENTRY.replace("blr", "fra"), ENTRY + "mptcp = true", ENTRY + '[peer.x]\nkeys = ["x"]']
)
def test_another_peer_needs_a_restart(text):
    assert any(path.startswith("peer.") for path in with_new_keys(checked(ENTRY), checked(text))[1])


def test_what_needs_a_restart_is_named_whole():
    old = ENTRY + listening("10.0.0.1:80") + "[limits]\ndrain = 5"
    new = ENTRY + 'allow = ["10.0.0.0/8:443"]\n' + listening("10.0.0.1:81") + "[limits]\ndrain = 6\n[exit]\n"
    new += "address = '0.0.0.0:1'\nnetworks = ['10.0.0.0/8']"
    _, others = with_new_keys(checked(old), checked(new))
    assert others == ["listen.1.address", "exit", "peer.blr.allow", "limits.drain"]
    _, others = with_new_keys(checked(ENTRY), checked(ENTRY + listening("10.0.0.1:80")))
    assert others == ["listen"]


# Keys


def test_a_key_is_made_once_and_read_back(tmp_path):
    path = tmp_path / "k"
    made = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path) == made
    assert made.secret.hex() not in repr(made)
    with pytest.raises(UsageError, match="File exists"):
        make_key(path)
    assert read_key(path) == made


def test_a_missing_key_may_be_the_other_gateways(tmp_path):
    with pytest.raises(UsageError) as caught:
        read_key(tmp_path / "k")
    assert (
        caught.value.next_step
        == f"make one with `ackward gateway key {tmp_path}/k`, or copy the other gateway's"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "k"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(Refused, match="chmod 600"):
        read_key(path)


@pytest.mark.parametrize(
    "content", ["", "00" * 31, "00" * 33, "zz" * 32, "00" * 32 + "\n" + "00", "x" * 5000]
)
def test_what_is_no_key_is_said_without_showing_it(tmp_path, content):
    path = tmp_path / "k"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_key(path)
    assert "64 hexadecimal digits" in str(caught.value)
    assert not content or content[:8] not in str(caught.value)


def test_no_file_a_directory_and_a_pipe_are_no_keys(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    for name in ("none", "pipe", "directory"):
        with pytest.raises(UsageError):
            read_key(tmp_path / name)


def test_two_peers_never_share_a_key(tmp_path):
    make_key(tmp_path / "a.key")
    (tmp_path / "gateway.toml").write_text(
        "[exit]\naddress = '0.0.0.0:4433'\nnetworks = ['10.0.0.0/8']\n[peer.a]\nkeys = ['a.key']\n[peer.b]\nkeys = ['a.key']\n"
    )
    gateway = load(tmp_path / "gateway.toml")
    with pytest.raises(UsageError, match=r"peer\.b\.keys: .* holds the key of peer\.a"):
        load_keys(gateway)


def test_every_example_of_the_documentation_is_good():
    blocks = [part.split("```")[0] for part in DOCS.read_text().split("```toml\n")[1:]]
    assert len(blocks) >= 3
    for block in blocks:
        checked(block)


def test_the_lab_s_gateways_have_the_defaults_buffers():
    """The lab knows the gateway by its command line alone, so it has figures of its own."""
    buffers = checked(ENTRY).buffers
    assert (buffers.near, buffers.leg) == (ocean_ways.NEAR_BUFFER, ocean_ways.LEG_BUFFER)
