"""Bytes of every kind: a document or a finding, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import limits
from harness.contracts.csp_status import Contract
from harness.contracts.reading import Unreadable, depth_of, pointer, printable, read_object

CONTRACT = Contract.load()
DEEP = limits.DOCUMENT_DEPTH_MAX

ODD = {
    "empty": (b"", "not JSON"),
    "array": (b"[]", "an array"),
    "null": (b"null", "null"),
    "text": (b'"Active"', "a string"),
    "number": (b"5.2", "a number"),
    "NaN": (b'{"mm_util": NaN}', "NaN is not JSON"),
    "infinity": (b'{"mm_util": -Infinity}', "Infinity is not JSON"),
    "number beyond floats": (b'{"mm_util": 1e999}', "too large"),
    "duplicate key": (b'{"trading_mode": "Kill", "trading_mode": "Active"}', "twice"),
    "duplicate key inside": (b'{"owner_view": {"a": 1, "a": 2}}', "twice"),
    "bad UTF-8": (b'{"build_id": "\xff\xfe"}', "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "lone surrogate": (b'{"build_id": "\\ud800"}', "lone surrogate"),
    "lone surrogate in a list": (b'{"mode_reasons": ["a", "\\udfff"]}', "lone surrogate"),
    "lone surrogate in a nested list": (b'{"mode_reasons": [["\\udfff"]]}', "lone surrogate"),
    "lone surrogate as a key": (b'{"\\ud800": 1}', "lone surrogate"),
    "integer beyond 64 bits": (b'{"429_count_5m": 9223372036854775808}', "64 bits"),
    "integer of 10,000 digits": (b'{"429_count_5m": ' + b"9" * 10_000 + b"}", "64 bits"),
    "20 MB": (b'{"a": "' + b"x" * 20_000_000 + b'"}', "larger than"),
    "deep nesting": (b'{"a": ' * (DEEP + 1) + b"1" + b"}" * (DEEP + 1), "deeper than"),
    "100,000 brackets": (b"[" * 100_000, "deeper than"),
    "cut off": (b'{"trading_mode": "Act', "not JSON"),
    "trailing words": (b"{} {}", "not JSON"),
    "single quotes": (b"{'a': 1}", "not JSON"),
}


@pytest.mark.parametrize(("data", "why"), ODD.values(), ids=ODD)
def test_odd_bytes_are_one_finding(data: bytes, why: str) -> None:
    """One SCHEMA finding for the whole document, saying why."""
    (found,) = CONTRACT.check(data)
    assert (found.tag, found.path) == ("SCHEMA", "") and why in found.message


def test_lawful_unicode_is_read() -> None:
    """Surrogate pairs, depth within the bound and the largest integer are no oddity."""
    text = '{"a": "\\ud83d\\ude00", "b": ' + "[" * (DEEP - 1) + "]" * (DEEP - 1) + ', "c": 9223372036854775807}'
    assert read_object(text.encode())["a"] == "\U0001f600"


def test_brackets_in_texts_are_no_depth() -> None:
    """Depth is counted outside of strings, escapes included."""
    assert depth_of(b'{"a": "[[[[\\"[["}') == 1 and depth_of(b'"\\\\"[[') == 2 and depth_of(b'"[[[') == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    """Bytes that nobody chose."""
    assert CONTRACT.check(data, strict=True)


def _damaged(golden: bytes) -> st.SearchStrategy[bytes]:
    return st.tuples(st.integers(0, len(golden) - 1), st.binary(max_size=4), st.integers(0, 6)).map(
        lambda cut: golden[:cut[0]] + cut[1] + golden[cut[0] + cut[2]:])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_goldens_never_raise(data: st.DataObject) -> None:
    """A lawful document with a few bytes cut, changed or added."""
    golden = json.dumps(_GOLDEN).encode()
    for each in CONTRACT.check(data.draw(_damaged(golden)), strict=True):
        assert str(each).isascii() and str(each).isprintable()


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                     max_leaves=8)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*CONTRACT.manifest.known_keys, "other"]), _JSON, max_size=6))
def test_any_value_in_any_field_never_raises(changes: dict[str, Any]) -> None:
    """Wrong types in every place, through the fast path."""
    for each in CONTRACT.check_document({**_GOLDEN, **changes}, strict=True):
        assert str(each).isascii() and str(each).isprintable()


def test_paths_and_messages_cannot_forge_lines() -> None:
    """Pointers are RFC 6901, control characters are escaped."""
    assert pointer("a/b~c", 0) == "/a~1b~0c/0"
    assert printable("a\nb\x1b[2J\u2028\ud800") == "a\\nb\\x1b[2J\\u2028\\ud800"


def test_unreadable_is_the_only_way_out() -> None:
    """The reader raises one thing."""
    with pytest.raises(Unreadable):
        read_object(b"{")


@pytest.fixture(autouse=True, scope="module")
def _golden_document() -> None:
    from harness.contracts.library import FIXTURES, REPOSITORY
    _GOLDEN.update(json.loads((REPOSITORY / FIXTURES / "session_termination.json").read_text()))


_GOLDEN: dict[str, Any] = {}
Get = Callable[[str], dict[str, Any]]
