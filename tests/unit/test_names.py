"""Names that came from outside, made visible."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.model.names import MOST_MARKS, prose, visible

#: Characters that direct the text around them, and have no ink (UAX 9, 2.1 to 2.6); ALM, LRM and RLM are Cf, too.
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = ("Mn", "Me")
#: Anything that a str can hold, and rather often what hides.
TEXT = st.text(
    st.characters(exclude_categories=())
    | st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Zs", *MARKS))
    | st.sampled_from("ab \u200e\u200f\u061c\u202a\u202e\u2066\u2069\udcff\x85")
)
#: Letters of any script, digits, signs and spaces.
PLAIN = st.text(st.characters(categories=("L", "N", "P", "S", "Mc", "Zs")).filter(str.isprintable))


@given(TEXT)
def test_nothing_hides_in_what_is_shown(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not {unicodedata.bidirectional(character) for character in shown} & BIDI
    assert not {unicodedata.category(character) for character in shown} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }
    shown.encode()  # no lone surrogate
    piled = 0
    for character in shown:
        piled = piled + 1 if unicodedata.category(character) in MARKS else 0
        assert piled <= MOST_MARKS
    assert visible(shown) == shown
    assert prose(text).isprintable()


@given(PLAIN)
def test_plain_names_stay(name: str) -> None:
    assert visible(name) == name


@given(st.binary())
def test_a_files_name_may_have_any_bytes(name: bytes) -> None:
    told = visible(os.fsdecode(name))
    assert told.isprintable()
    try:
        assert told == visible(name.decode())
    except UnicodeDecodeError:
        assert "\\x" in told


@pytest.mark.parametrize(
    "text",
    [
        "nginx", "Übersetzer", "веб-сервер", "服务器", "שלום", "naïve e\u0301", "🦊",
        "a b.pcap", "[x].pcap", "Übergang-日本.pcap", "back\\slash",
    ],
)  # fmt: skip
def test_what_can_be_read_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b[31m", "\\x1b[31m"),
        ("pay\u202egnp", "pay\\u202egnp"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u00a0b", "a\\xa0b"),
        ("\ud83d", "\\ud83d"),
        ("a\udcff", "a\\xff"),
        ("\U000e0041", "\\U000e0041"),
        ("\x85\u2028", "\\x85\\u2028"),
        ("e\u0301\u0301\u0301", "e\u0301\u0301\\u0301"),
    ],
)
def test_what_hides_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
