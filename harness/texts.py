"""Texts from outside, read in bounds and strictly: whatever a file holds, the answer is its value or one error with
``file:line:column``.

YAML is read as nodes, not as loaded values, so that every mistake keeps its line and column.

What a loader would silently swallow is caught here: duplicate keys, ``no`` and ``yes`` as booleans, ``1:30`` as a
number in base sixty, dates, tags, anchors and aliases (and with them every bomb made of aliases), merge keys,
several documents, nesting without end. Events are read first and lazily, so a hostile text is refused before
anything is built from it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from harness import limits
from harness.errors import TextError, nearest

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_PLAIN_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]{1,2})?\Z")
_TAGS = {
    "tag:yaml.org,2002:bool": "the boolean",
    "tag:yaml.org,2002:int": "the number",
    "tag:yaml.org,2002:float": "the number",
    "tag:yaml.org,2002:null": "the null",
    "tag:yaml.org,2002:timestamp": "the date",
    "tag:yaml.org,2002:merge": "the merge key",
    "tag:yaml.org,2002:value": "the YAML value key",
}
_MERGE_TAG = "tag:yaml.org,2002:merge"
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Spot:
    """One node of a text, and where it stands."""

    file: str
    node: Any
    """a yaml.Node; the stubs give it neither style nor value"""

    def wrong(self, expected: str, known: Iterable[str] = (), found: str | None = None) -> TextError:
        """The error that this spot is not what was expected; ``known`` are the right names."""
        return wrong_at(self.file, self.node.start_mark, found or self.shown(), expected, self._nearest(known))

    def _nearest(self, known: Iterable[str]) -> str | None:
        return nearest(self.node.value, known) if isinstance(self.node, yaml.ScalarNode) else None

    def shown(self) -> str:
        """What stands here, short enough for one line."""
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        text = self.node.value if len(self.node.value) <= 60 else self.node.value[:57] + "..."
        if text == "" and self.node.tag != _TEXT_TAG:
            return "nothing"
        kind = _TAGS.get(self.node.tag)
        return f"{kind} {text}" if kind else repr(text)

    # ---- shapes

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def mapping(self, expected: str = "a mapping") -> dict[str, tuple[Spot, Spot]]:
        """key → (key's spot, value's spot), in the order of the text. Keys are plain texts, each once."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(expected)
        entries: dict[str, tuple[Spot, Spot]] = {}
        for key_node, value_node in self.node.value:
            key = Spot(self.file, key_node)
            name = key.key()
            if name in entries:
                first = entries[name][0].node.start_mark.line + 1
                raise key.wrong(f"each key once; it already stands on line {first}", found=f"the key {name!r} again")
            entries[name] = (key, Spot(self.file, value_node))
        return entries

    def known(self, names: tuple[str, ...]) -> dict[str, Spot]:
        """The values of a mapping that has no other keys than these."""
        entries = self.mapping()
        for name, (key, _) in entries.items():
            if name not in names:
                raise key.wrong(f"one of {', '.join(names)}", names, f"the key {name!r}")
        return {name: value for name, (_, value) in entries.items()}

    def key(self) -> str:
        """A key as text. A number-like key of digits and letters (``429_count_5m``) is a text already."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _TEXT_TAG:
            raise self.wrong("a name as key (put quotes around it if it is meant as text)")
        return str(self.node.value)

    def items(self, expected: str = "a list") -> list[Spot]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(expected)
        return [Spot(self.file, each) for each in self.node.value]

    # ---- scalars

    def text(self, expected: str = "text") -> str:
        """A scalar that YAML reads as text; ``no``, ``12`` and ``1:30`` are refused, quotes make them text."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == _TEXT_TAG:
            return str(self.node.value)
        quotes = " (put quotes around it if it is meant as text)" if isinstance(self.node, yaml.ScalarNode) else ""
        raise self.wrong(expected + quotes)

    def integer(self, lowest: int, highest: int, expected: str) -> int:
        """A plain decimal integer within bounds."""
        plain = isinstance(self.node, yaml.ScalarNode) and self.node.tag.endswith(":int")
        if not plain or not _PLAIN_INT.match(self.node.value) or not lowest <= int(self.node.value) <= highest:
            raise self.wrong(expected)
        return int(self.node.value)

    def boolean(self) -> bool:
        value = self.json()
        if not isinstance(value, bool):
            raise self.wrong("true or false")
        return value

    def json(self) -> Json:
        """Any JSON value: ``true``/``false`` only by these words, numbers only as JSON writes them."""
        if isinstance(self.node, yaml.SequenceNode):
            return [each.json() for each in self.items()]
        if isinstance(self.node, yaml.MappingNode):
            return {name: value.json() for name, (_, value) in self.mapping().items()}
        return self._scalar()

    def _scalar(self) -> Json:
        text, tag = self.node.value, self.node.tag
        if tag == _TEXT_TAG:
            return str(text)
        if tag.endswith(":bool") and text in ("true", "false"):
            return bool(text == "true")
        if tag.endswith(":null") and text == "null":
            return None
        if tag.endswith(":int") and _PLAIN_INT.match(text):
            return int(text)
        if tag.endswith(":float") and _PLAIN_FLOAT.match(text):
            return float(text)
        raise self.wrong("text in quotes, true, false, null, or a number as JSON writes it")


def wrong_at(file: str, mark: Any, found: str, expected: str, near: str | None = None) -> TextError:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return TextError(file, line, column, found, expected, near)


def read(file: Path, bytes_max: int) -> bytes:
    """A regular file's bytes. A pipe is not waited for and a device not read; a file that is too long is not read at
    all. Raises TextError, OSError."""
    with _opened(file, bytes_max) as stream:
        return stream.read(bytes_max + 1)[:bytes_max]


def blocks(file: Path, bytes_max: int, size: int) -> Iterator[bytes]:
    """As ``read``, by pieces of about a size, each but the last of whole lines."""
    with _opened(file, bytes_max) as stream:
        held: list[bytes] = []
        while data := stream.read(min(size, bytes_max)):
            bytes_max -= len(data)
            end = data.rfind(b"\n") + 1
            held.append(data[:end] if end else data)
            if end:
                yield b"".join(held)
                held = [data[end:]] if end < len(data) else []
        if held:
            yield b"".join(held)


def _opened(file: Path, bytes_max: int) -> BinaryIO:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as why:  # a null byte in its name
        raise TextError(ascii(str(file)), 1, 1, str(why), "a file") from None
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):  # what Python makes of one names the descriptor, not the file
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    stream = os.fdopen(descriptor, "rb")
    wrong = None
    if not stat.S_ISREG(found.st_mode):
        wrong = TextError(str(file), 1, 1, "no regular file", "a text file")
    elif found.st_size > bytes_max:
        wrong = TextError(str(file), 1, 1, f"{found.st_size} bytes", f"at most {bytes_max} bytes")
    if wrong is not None:
        stream.close()
        raise wrong
    return stream


def load(data: bytes, file: str, aliases: bool = False) -> Json:
    """The value of a YAML text of ours or of a person's: a stack, a policy, a checklist, a rule. Raises TextError.

    ``aliases`` and merge keys may be allowed where they save repetition; what they stand for is counted, so that no
    bomb is built.
    """
    spot = compose(data, file, limits.SPEC_FILE_BYTES_MAX, aliases, "a mapping")
    try:
        if aliases:
            _merge(spot.node, file)
            _count(spot.node, file)
        return spot.json()
    except RecursionError:  # one alias in another, each as deep as may be
        raise TextError(file, 1, 1, "nesting without end", "a flat text") from None


def settings(file: Path, what: str) -> Spot:
    """The root of a person's settings, to be read key by key. Raises TextError, OSError."""
    return compose(read(file, limits.SPEC_FILE_BYTES_MAX), str(file), limits.SPEC_FILE_BYTES_MAX, empty=what)


def load_json(data: bytes, file: str) -> Json:
    """The value of a JSON text of ours, each key once. Raises TextError."""
    try:
        value: Json = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as why:
        lacks = why.msg.removeprefix("Expecting ")
        told = ("something else", f"{lacks}, as JSON has it") if lacks != why.msg else (why.msg, "JSON")
        raise TextError(file, why.lineno, why.colno, *told) from None
    except (ValueError, RecursionError) as why:
        raise TextError(file, 1, 1, str(why)[:200], "JSON") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(each for each in names if names.count(each) > 1)!r} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _merge(root: Any, file: str) -> None:
    """Write out every merge key: what a mapping says itself wins over what it takes from another."""
    seen: set[int] = set()
    written = 0

    def merge(node: Any) -> None:
        nonlocal written
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            return
        seen.add(id(node))
        for part in node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]:
            merge(part)
        if not isinstance(node, yaml.MappingNode):
            return
        taken = [value for key, value in node.value if key.tag == _MERGE_TAG]
        own = [pair for pair in node.value if pair[0].tag != _MERGE_TAG]
        if len(taken) > 1 or not all(isinstance(each, yaml.MappingNode) for each in taken):
            raise wrong_at(file, node.start_mark, "a merge of something else", "one mapping to merge")
        names = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
        for each in taken:
            own += [pair for pair in each.value if not isinstance(pair[0], yaml.ScalarNode) or pair[0].value not in names]
        written += len(own)
        if written > limits.SPEC_VALUES_MAX:
            raise wrong_at(file, node.start_mark, f"more than {limits.SPEC_VALUES_MAX} merged values", "fewer")
        node.value = own

    merge(root)


def _count(root: Any, file: str) -> None:
    """Refuse a text whose aliases, written out, stand for more values than any text of ours has, or for themselves."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = limits.SPEC_VALUES_MAX  # what holds itself is as large as it gets
            parts = node.value if isinstance(node, yaml.SequenceNode) else \
                [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
            sizes[id(node)] = min(limits.SPEC_VALUES_MAX, 1 + sum(map(size, parts)))
        return sizes[id(node)]

    if size(root) >= limits.SPEC_VALUES_MAX:
        raise wrong_at(file, root.start_mark, f"{limits.SPEC_VALUES_MAX} values or more, its aliases written out", "fewer")


def compose(text: bytes, file: str, bytes_max: int | None = None, aliases: bool = False, empty: str = "a drill") -> Spot:
    """The root of a one-document YAML text of bounded size and depth. Raises TextError."""
    most = limits.DRILL_FILE_BYTES_MAX if bytes_max is None else bytes_max
    if len(text) > most:
        raise TextError(file, 1, 1, f"{len(text)} bytes", f"at most {most} bytes")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as why:
        line = text.count(b"\n", 0, why.start) + 1
        column = why.start - text.rfind(b"\n", 0, why.start)
        raise TextError(file, line, column, f"the byte 0x{text[why.start]:02x}", "UTF-8 text") from None
    try:
        for _ in _refuse_tricks(decoded, file, aliases):
            pass
        node = yaml.compose(decoded, Loader=_LOADER)
    except yaml.reader.ReaderError as why:
        line = decoded.count("\n", 0, why.position) + 1
        column = why.position - decoded.rfind("\n", 0, why.position)
        raise TextError(file, line, column, f"the character U+{_code_point(why.character):04X}", "printable text") from None
    except yaml.MarkedYAMLError as why:
        raise _unreadable(file, why) from None
    if node is None:
        raise TextError(file, 1, 1, "nothing", empty)
    return Spot(file, node)


def _unreadable(file: str, why: yaml.MarkedYAMLError) -> TextError:
    """The parser's sentence as one of ours: what was found, what was expected, and where that began which does not end."""
    problem = why.problem or "something unreadable"
    if lacks := re.fullmatch(r"(?:did|could) not find (?:the )?expected (.+)", problem):
        found, expected = "something else", lacks[1]
    elif lacks := re.fullmatch(r"expected (.+), but (?:got|found) (.+)", problem):
        expected, found = lacks.groups()
    else:
        found, expected = re.sub(r" (?:are|is) not allowed ", ", not allowed ", problem.removeprefix("found ")), "YAML"
    begun, mark = why.context_mark, why.problem_mark or why.context_mark
    if begun is not None and mark is not None and (begun.line, begun.column) != (mark.line, mark.column):
        expected += f" {why.context}, which begins at {begun.line + 1}:{begun.column + 1}"
    return wrong_at(file, mark, found, expected)


def _code_point(character: Any) -> int:
    """libyaml gives the number, the Python reader the character."""
    return character if isinstance(character, int) else ord(character[:1] or "?")


def _refuse_tricks(text: str, file: str, aliases: bool) -> Iterator[Any]:
    """Every event of the text; raises at the first one that a plain text has no use for."""
    depth = documents = 0
    event: Any
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise wrong_at(file, event.start_mark, f"the alias *{event.anchor}", "the value itself, written out")
        if getattr(event, "anchor", None) and not aliases:
            raise wrong_at(file, event.start_mark, f"the anchor &{event.anchor}", "a value without an anchor")
        if getattr(event, "tag", None):
            raise wrong_at(file, event.start_mark, f"the tag {event.tag}", "a value without a tag")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise wrong_at(file, event.start_mark, "a second document", "one a file")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > limits.DOCUMENT_DEPTH_MAX:
                deep = f"nesting deeper than {limits.DOCUMENT_DEPTH_MAX}"
                raise wrong_at(file, event.start_mark, deep, "a flat text")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        yield event
