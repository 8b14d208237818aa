"""Bytes to a JSON document, bounded: whatever the bytes are, the answer is a document or a reason, never a raise.

Stricter than most readers, because two readers that disagree about a document could be told two stories: duplicate
keys, NaN and infinities, lone surrogates, invalid UTF-8 and integers beyond 64 bits are refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from harness import limits

INTEGER_MAX = 2**63 - 1
"""Beyond this, JSON readers disagree about the value."""

_SHOWN_MAX = 80
"""How many characters of a foreign text a message repeats."""


class Unreadable(ValueError):
    """Why bytes are no lawful document."""


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``. Raises Unreadable with a sentence, and nothing else."""
    if len(data) > limits.DOCUMENT_BYTES_MAX:
        raise Unreadable(f"the document is larger than {limits.DOCUMENT_BYTES_MAX} bytes")
    if depth_of(data) > limits.DOCUMENT_DEPTH_MAX:
        raise Unreadable(f"the document is nested deeper than {limits.DOCUMENT_DEPTH_MAX} levels")
    value = _parsed(_text(data))
    if not isinstance(value, dict):
        raise Unreadable(f"the document is {_kind(value)}, not an object")
    return value


def depth_of(data: bytes) -> int:
    """How deep brackets nest outside of strings; no parser is asked, since a parser is what depth would exhaust."""
    deepest = depth = 0
    for opening in _BRACKETS.finditer(data):
        if opening.lastgroup == "open":
            depth += 1
            deepest = max(deepest, depth)
        elif opening.lastgroup == "close":
            depth -= 1
    return deepest


_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)|(?P<open>[\[{])|(?P<close>[\]}])', re.DOTALL)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as why:
        raise Unreadable(f"the document is not UTF-8: byte {why.start} {why.reason}") from None


def _parsed(text: str) -> Any:
    if text.startswith("\ufeff"):
        raise Unreadable("the document begins with a byte order mark")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant,
                          parse_float=_finite, parse_int=_small)
    except Unreadable:
        raise
    except json.JSONDecodeError as why:
        raise Unreadable(f"the document is not JSON: {why.msg} at line {why.lineno} column {why.colno}") from None
    except (ValueError, RecursionError) as why:
        raise Unreadable(f"the document is not JSON: {type(why).__name__}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Unreadable(f"the key {shown(key)} appears twice")
        if not (_encodes(key) and (not isinstance(value, str | list) or _encodes(value))):
            raise Unreadable(f"the text at {shown(key)} holds a lone surrogate")
        found[key] = value
    return found


def _encodes(value: Any) -> bool:
    """Whether every text directly in ``value`` is lawful Unicode. Objects inside were asked when they were read."""
    if isinstance(value, list):
        return all(_encodes(each) for each in value)
    try:
        return not isinstance(value, str) or bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable(f"the number {shown(text)} is too large")
    return value


def _small(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > INTEGER_MAX:
        raise Unreadable(f"the integer {shown(text)} does not fit into 64 bits")
    return value


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number",
            type(None): "null"}.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """A foreign value in a message: printable, ASCII, one line and short."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        text = f"an unprintable {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def printable(text: str) -> str:
    """Foreign text on a terminal: everything but printable ASCII escaped, so that no key and no file name can forge
    a line, move the cursor or break the encoding."""
    return "".join(each if " " <= each <= "~" else each.encode("unicode_escape", "surrogatepass").decode()
                   for each in text)


def pointer(*parts: str | int) -> str:
    """An RFC 6901 path; the whole document is ``""``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
