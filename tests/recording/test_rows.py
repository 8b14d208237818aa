"""A stream read by the block says what its lines say, and nothing else once it has been changed."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import limits, texts
from harness.errors import TextError
from harness.recording import rows as module
from harness.recording.rows import Book, Row, Rows


class Ahead:
    """A node's clock that is ten ahead, known to one."""

    def interval(self, mono: int) -> tuple[int, int]:
        return mono - 11, mono - 9


LINES = st.lists(st.builds(lambda at, kind, more: orjson.dumps({"at": at, "kind": kind, "more": more}),
                           st.integers(0, 50), st.sampled_from(["a", "b", None, 5]), st.text("xyz", max_size=40))
                 | st.sampled_from([b"", b"[]", b"{", b'{"at":1.5}', b"\xff", b'{"at":1}\r']), max_size=30)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.integers(1, 200), st.integers(1, 3), st.booleans())
def test_rows_are_those_of_the_lines(tmp_path: Path, lines: list[bytes], size: int, kept: int, ended: bool) -> None:
    """Whatever the size of a block, and however few of them stay in memory."""
    file = tmp_path / "books.jsonl"
    data = b"\n".join(lines) + b"\n" * ended
    file.write_bytes(data)
    before = module.BLOCK_BYTES, module.BLOCKS_KEPT
    module.BLOCK_BYTES, module.BLOCKS_KEPT = size, kept
    try:
        assert b"".join(texts.blocks(file, 10**6, size)) == data
        book = Book(file, Ahead())
        plain, wrong = [], []
        for number, line in enumerate(data.splitlines(), start=1):
            value: Any = None
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                wrong.append(number)
                continue
            if isinstance(value, dict) and isinstance(value.get("at"), int):
                plain.append(Row(value["at"] - 11, value["at"] - 9, value))
            else:
                wrong.append(number)
        rows = Rows(book)
        assert list(rows) == [rows[number] for number in range(len(rows))] == plain
        assert (book.lines, book.size, book.sha256) == (len(data.splitlines()), len(data), hashlib.sha256(data).hexdigest())
        assert book.no_row == (wrong[0] if wrong else None)
        stamps = [each.value["at"] for each in plain]
        assert book.back == next((n for n, (one, two) in enumerate(pairwise(stamps), 2) if two < one), None)
        assert list(rows.of_kind("a")) == [each for each in plain if each.value.get("kind") == "a"]
        assert list(rows.of_kind("b", "a", "zzz")) == [each for each in plain if each.value.get("kind") in ("a", "b")]
        assert list(rows.of_kind(None)) == [each for each in plain if not isinstance(each.value.get("kind"), str)]
        assert list(rows.that(lambda row: row.earliest > 5)) == [each for each in plain if each.earliest > 5]
        assert list(rows.in_time()) == sorted(plain, key=lambda each: each.earliest)
        assert list(rows[1:3]) == plain[1:3]
    finally:
        module.BLOCK_BYTES, module.BLOCKS_KEPT = before


def test_a_stream_that_changes_meanwhile_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read again must be what was hashed."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    monkeypatch.setattr(module, "BLOCKS_KEPT", 1)
    file = tmp_path / "books.jsonl"
    file.write_bytes(b"".join(b'{"at":%d,"kind":"order"}\n' % (100 + number) for number in range(50)))
    book = Book(file, Ahead())
    assert book.row(0).value["at"] == 100
    file.write_bytes(file.read_bytes().replace(b'"at":101,', b'"at":109,'))
    assert book.row(49).value["at"] == 149
    with pytest.raises(ValueError, match="was changed while it was being judged"):
        book.row(1)


def test_no_more_is_in_memory_than_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the stream is."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 1_000)
    file = tmp_path / "books.jsonl"
    file.write_bytes(b"".join(b'{"at":%d,"kind":"order"}\n' % number for number in range(20_000)))
    book = Book(file, Ahead())
    assert len(book) == 20_000 and sum(1 for _ in Rows(book)) == 20_000
    assert len(book._kept) == module.BLOCKS_KEPT


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long, no file at all; nothing is read of either."""
    monkeypatch.setattr(limits, "STREAM_BYTES_MAX", 10)
    (tmp_path / "long").write_bytes(bytes(11))
    with pytest.raises(TextError, match="11 bytes"):
        Book(tmp_path / "long", Ahead())
    with pytest.raises(OSError):
        Book(tmp_path / "nothing", Ahead())
    assert list(Rows()) == list(Rows().of_kind("a")) == list(Rows().that(bool)) == [] and len(Rows()) == 0
