"""What people see on a terminal."""

from __future__ import annotations

import io

from harness import console


def test_control_characters_never_reach_the_terminal() -> None:
    """ANSI escapes and line breaks in a system's words are written out."""
    assert console.plain("\x1b[31mred\n") == "\\x1b[31mred\\x0a"


def test_no_colour_without_a_terminal() -> None:
    """A pipe gets plain words."""
    assert console.painted("PASS", io.StringIO()) == "PASS"


def test_columns_align() -> None:
    """Columns are padded to the widest cell, the last one is not."""
    assert console.table([["a", "bb"], ["ccc", "d"]], io.StringIO()) == "a    bb\nccc  d"
