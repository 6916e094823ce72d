"""The wire format of Protocol Buffers: what was encoded comes back, unknown fields are skipped, broken ones are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.kernel import protobuf

numbers = st.integers(1, (1 << 29) - 1)
values = st.integers(0, (1 << 64) - 1) | st.binary(max_size=300)


@given(st.dictionaries(numbers, st.lists(values, min_size=1, max_size=3), max_size=6))
def test_what_was_encoded_comes_back(fields):
    assert protobuf.decode(protobuf.encode(fields)) == fields


@given(st.dictionaries(st.text(), st.text(), max_size=5), st.text(), st.integers(0, 1 << 40))
def test_strings_numbers_and_maps_come_back(mapping, text, number):
    fields = protobuf.decode(protobuf.encode({1: mapping, 2: text, 3: number}))
    assert protobuf.mapping(fields, 1) == mapping
    assert protobuf.text(fields, 2) == text
    assert protobuf.number(fields, 3) == number


def test_what_was_not_sent_is_empty():
    assert protobuf.message({}, 1) == {}
    assert (protobuf.text({}, 1), protobuf.number({}, 1), protobuf.mapping({}, 1)) == ("", 0, {})


def test_the_bytes_are_those_of_the_documentation():
    # protobuf.dev/programming-guides/encoding: Test1 {a: 150}, Test2 {b: "testing"}, Test3 {c: {a: 150}}.
    assert protobuf.encode({1: 150}) == bytes.fromhex("089601")
    assert protobuf.encode({2: "testing"}) == bytes.fromhex("120774657374696e67")
    assert protobuf.encode({3: protobuf.encode({1: 150})}) == bytes.fromhex("1a03089601")


def test_fixed_numbers_of_fields_that_nobody_reads_are_passed_over():
    fixed = bytes.fromhex("09 0100000000000000 15 02000000")
    assert protobuf.decode(fixed + protobuf.encode({3: "after"})) == {1: [1], 2: [2], 3: [b"after"]}


@pytest.mark.parametrize(
    "broken", ["08", "0880", "12ff", "120774", "0901", "0801 0f", "0b", "00 00", "08" + "80" * 10]
)
def test_what_is_broken_is_told(broken):
    with pytest.raises(ValueError, match=r"field|number"):
        protobuf.decode(bytes.fromhex(broken))


@given(st.binary(max_size=200))
def test_nothing_but_a_value_error_comes_of_any_bytes(data):
    try:
        fields = protobuf.decode(data)
        for number in fields:
            protobuf.text(fields, number)
            protobuf.number(fields, number)
            protobuf.mapping(fields, number)
    except ValueError:
        pass


def test_every_cut_of_a_message_is_a_shorter_message_or_told():
    whole = protobuf.encode({1: "pod", 2: 300, 3: {"key": "value"}})
    for end in range(len(whole)):
        try:
            assert set(protobuf.decode(whole[:end])) < {1, 2, 3}
        except ValueError:
            continue
