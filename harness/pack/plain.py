"""Making strangers' text safe to show: in a terminal, in Markdown, in a table that a spreadsheet opens.

What a drilled system says goes into reports that people open. A status document may hold terminal commands,
markup, text that turns the reading direction around, or a formula; each kind of report has its own defence
here, and HTML has the template engine's escaping.
"""

from __future__ import annotations

import unicodedata

CUT = " […]"
"""Marks the place where text was cut off, so that nobody takes a part for the whole."""

_MARKDOWN = frozenset("\\`*[]<>|~&")
"""Not the underscore, which half of all our names hold and which can do no worse than slant a word."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(value: object, limit: int | None = None) -> str:
    """One line of text in which every character shows itself: controls and direction marks become ``\\x1b``.

    Line ends and tabs become spaces, because they are ordinary in prose and only the line must not break.
    """
    text = str(value)
    if not text.isprintable():  # in printable text every character shows itself already
        text = "".join(_shown(character) for character in text)
    if limit is not None and len(text) > limit:
        return text[: max(0, limit - len(CUT))] + CUT
    return text


def _shown(character: str) -> str:
    if character in "\n\r\t":
        return " "
    category = unicodedata.category(character)
    if category[0] != "C" and category not in {"Zl", "Zp"}:
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def markdown(value: object, limit: int | None = None) -> str:
    """``visible`` text with no power over the Markdown around it, nor over the HTML that it may become."""
    return "".join(f"\\{each}" if each in _MARKDOWN else each for each in visible(value, limit))


def cell(value: object) -> str:
    """``visible`` text for a CSV cell; what a spreadsheet would run as a formula is led by an apostrophe."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    text = visible("" if value is None else value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def harmless_json(data: bytes) -> bytes:
    """The same JSON, with every character that shows nothing of itself written as ``\\u202e``: a file that is printed on
    a terminal must not steer it, nor turn what stands beside it around."""
    if data.isascii() and b"\x7f" not in data:  # below the space JSON allows nothing but line ends
        return data
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in data.decode()).encode()


def _escaped(character: str) -> str:
    """As JSON escapes it: two halves where it lies beyond 16 bits."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at:at + 2].hex()}" for at in range(0, len(units), 2))
