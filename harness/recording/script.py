"""Hand-made recordings: a short YAML script becomes a run folder, as if a world had written it.

Nothing is trusted green until it has been seen red, so every rule needs a recording that breaks it; those live in
``fixtures/recordings`` as scripts. A *base* script tells a whole lawful run; a *variant* names its base and the few
places in which it differs.

    drill: |                     the drill's text            policy: {…}   its policy values
    world, seed, placebo         for the head                end: 20000    when sampling stops
    stack: stack.yaml            beside the script
    marks: {given: [5000, 5050], …}
    samples: {status: {every: 50, takes: 4, from: 400}, nav: {every: 1000, takes: 1, on_change: true}}
                                 on_change: a file, seen as it changes, too; each change may say ``how`` (else replaced)
    written: [{surface, at, how, text | null}]       changes of a file beside those
    documents: {status: {start: {…}, follow: [fields that count with the tape], changes: [{at, set: {…}}],
                         dated: true, loop: {from, every, to, counts: {updated_ts: 1.0, writer.seq: 1}}}}
                                 dated: the time stamps in it go on with the tape
                                 loop: written again and again, and each time these fields are so much more
                                 a value $policy in start: the digest of the policy above
    silence: [{surface, from, to, why}]      raw: [{surface, at, body}]
    streams: {books: [{at, kind, …}], …}     clocks: {exchange: {ahead: 100000, every: 1000, takes: 1, jumps: {from, by}}}
    absent: [streams whose file was never there]
    torn: {books: bytes that could not be read}      a row's ``stamp`` stands in for its ``at`` when it is written
    probes: [{id, what, from, to, every, value | start, step}]
    own: {own/contracts/own.rules.yaml: text}        what the stack brought along, named by digest in the head
    acts: [{id, step, begin, end, saw}]      limits: {name: bound}      status: completed

A variant: ``base``, ``because``, ``expect``, ``edit`` (``{at: path/of/keys, to: value}``, ``{at, add: value}``,
``{at, remove: true}``,
``{at, extend: [...]}``, ``{at, replace: [old text, new text]}``) and ``damage`` (``{delete: file}``, ``{cut: file, bytes: n}``,
``{append: file, text: …}``, ``{unseal: true}``), which is done to the written folder.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import yaml

from harness.errors import SpecError
from harness.recording.tape import Tape, canonical

Script = dict[str, Any]
POLICY = "$policy"


def read(file: Path) -> Script:
    """A script, its base resolved and its edits made. Raises SpecError."""
    raw = _yaml(file)
    if "base" not in raw:
        return {**raw, "folder": file.parent}
    script = read(file.parent / raw["base"])
    script.update({key: raw[key] for key in ("because", "expect", "damage") if key in raw})
    for edit in raw.get("edit", ()):
        try:
            _edit(script, edit)
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as why:
            raise SpecError(f"{file}: the edit at {edit.get('at')!r} fits nothing: {why!r}") from why
    return script


def build(script: Script, folder: Path) -> Path:
    """Write the run folder that the script tells of."""
    folder.mkdir(parents=True, exist_ok=True)
    stack = (script["folder"] / script["stack"]).read_bytes()
    drill, policy = script["drill"].encode(), script["policy"]
    script = {**script, "documents": {surface: _under(policy, told) for surface, told in script["documents"].items()}}
    (folder / "drill.yaml").write_bytes(drill)
    (folder / "stack.yaml").write_bytes(stack)
    (folder / "policy.json").write_bytes(canonical(policy))
    own = {path: text.encode() for path, text in script.get("own", {}).items()}
    for path, data in own.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    tape = Tape(folder)
    tape.head(
        run_id=folder.name, world=script.get("world", "sim"), seed=script.get("seed", 1),
        placebo=script.get("placebo", False), drill={"name": "hand-made", "sha256": _sha256(drill)},
        stack={"name": "hand-made", "sha256": _sha256(stack)}, policy={"name": "drill", "sha256": _sha256(canonical(policy))},
        surfaces={name: {"every_ms": each["every"]} for name, each in script["samples"].items()},
        **({"rules": {path: _sha256(data) for path, data in own.items()}} if own else {}),
    )
    lines = [*_marks(script), *_acts(script), *_probes(script), *_clocks(script), *_samples(script), *_written(script)]
    for _, _, write, arguments in sorted(lines, key=lambda line: line[:2]):
        getattr(tape, write)(*arguments)
    for name, bound in script.get("limits", {}).items():
        tape.limit(name, bound)
    tape.seal(script.get("status", "completed"), _streams(script, folder))
    for damage in script.get("damage", ()):
        _damage(folder, damage)
    return folder


def _under(policy: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What a surface tells, with the policy's digest where it tells that."""
    digest = _sha256(canonical(policy))
    return {**told, "start": {key: digest if value == POLICY else value for key, value in told["start"].items()}}


# ---- lines: (when, order, verb of the tape, arguments) ----------------------------------------------------

_Line = tuple[int, int, str, tuple[Any, ...]]


def _marks(script: Script) -> Iterator[_Line]:
    for name, (begin, end) in script["marks"].items():
        yield end, 0, "mark", (name, begin, end)


def _acts(script: Script) -> Iterator[_Line]:
    for each in script.get("acts", ()):
        yield each["end"], 1, "act", (each["id"], each["step"], each["begin"], each["end"], each.get("saw"))


def _probes(script: Script) -> Iterator[_Line]:
    for each in script.get("probes", ()):
        for number, at in enumerate(range(each["from"], each.get("to", each["from"]) + 1, each.get("every", 200))):
            value = each["value"] if "value" in each else each["start"] + number * each["step"]
            yield at, 2, "probe", (each["id"], each["what"], value, at)


def _clocks(script: Script) -> Iterator[_Line]:
    for node, clock in script.get("clocks", {}).items():
        jump = clock.get("jumps", {"from": script["end"], "by": 0})
        for at in range(0, script["end"], clock["every"]):
            mono = at + clock["ahead"] + (jump["by"] if at >= jump["from"] else 0)
            yield at, 3, "clock", (node, at, at + clock.get("takes", 1), mono)


def _samples(script: Script) -> Iterator[_Line]:
    for surface, grid in script["samples"].items():
        told = script["documents"][surface]
        for due in range(grid.get("from", 0), script["end"], grid["every"]):
            answered = due + grid["takes"]
            silence = next((each for each in script.get("silence", ())
                            if each["surface"] == surface and each["from"] <= due < each["to"]), None)
            raw = next((each for each in script.get("raw", ())
                        if each["surface"] == surface and each["at"] <= due < each["at"] + grid["every"]), None)
            if silence is not None:
                yield due, 4, "silence", (surface, due, due, answered, silence["why"])
            elif raw is not None:
                body = raw["body"].encode()
                yield due, 4, "raw", (surface, due, due, answered, len(body), body, _sha256(body))
            else:
                yield due, 4, "sample", (surface, due, due, answered, _document(told, due))


def _written(script: Script) -> Iterator[_Line]:
    """Every change of a file: what the watcher says of it, and the look that it took at once."""
    for surface, grid in script["samples"].items():
        told = script["documents"][surface]
        hows = dict.fromkeys(_turns(told, script["end"]), "replaced")
        hows |= {change["at"]: change.get("how", "replaced") for change in told.get("changes", ())}
        for at, how in sorted(hows.items()) if grid.get("on_change") else ():
            document = _document(told, at)
            yield at, 3, "written", _change(surface, at, how, canonical(document))
            if (at - grid.get("from", 0)) % grid["every"]:
                yield at, 4, "sample", (surface, at, at, at + grid["takes"], document, True)
    for each in script.get("written", ()):
        data = each["text"].encode() if each.get("text") is not None else None
        yield each["at"], 3, "written", _change(each["surface"], each["at"], each["how"], data)


def _change(surface: str, at: int, how: str, data: bytes | None) -> tuple[Any, ...]:
    return surface, at, at, how, None if data is None else len(data), None if data is None else _sha256(data)


def _document(told: Mapping[str, Any], at: int) -> dict[str, Any]:
    """The document at a moment: the start, with each change up to then, and the fields that count along."""
    document = deepcopy(told["start"])
    for change in sorted(told.get("changes", ()), key=lambda change: change["at"]):
        if change["at"] <= at:
            document |= deepcopy(change.get("set", {}))
            for key in change.get("unset", ()):
                document.pop(key, None)
    for field in told.get("follow", ()):
        if isinstance(document.get(field), int):
            document[field] += at
    turns = max(0, len(_turns(told, at + 1)) - 1)
    for path, step in told.get("loop", {}).get("counts", {}).items():
        *parts, last = path.split(".")
        place: Any = document
        for part in parts:
            place = place.get(part, {})
        if last in place:
            place[last] += turns * step
    return _dated(document, at) if told.get("dated") else document


_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z\Z")


def _dated(value: Any, at: int) -> Any:
    """The same with every time stamp so many milliseconds later; whole seconds stay whole."""
    if isinstance(value, dict):
        return {key: _dated(each, at) for key, each in value.items()}
    if isinstance(value, list):
        return [_dated(each, at) for each in value]
    if isinstance(value, str) and (stamp := _STAMP.match(value)):
        later = datetime.fromisoformat(value) + timedelta(milliseconds=at)
        return later.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if stamp[1] else "%Y-%m-%dT%H:%M:%SZ")
    return value


def _turns(told: Mapping[str, Any], end: int) -> range:
    """The moments before ``end`` at which a document is written in its loop."""
    loop = told.get("loop")
    return range(loop["from"], min(end, loop.get("to", end)), loop["every"]) if loop is not None else range(0)


# ---- streams and damage -----------------------------------------------------------------------------------


def _streams(script: Script, folder: Path) -> dict[str, Any]:
    """Write each stream on its node's own clock; return its seal. A row with ``raw`` is written as that text."""
    sealed = {}
    nodes = _yaml(script["folder"] / script["stack"]).get("streams", {})
    for name, rows in script.get("streams", {}).items():
        ahead = script.get("clocks", {}).get(nodes[name]["node"], {}).get("ahead", 0)
        ordered = sorted(rows, key=lambda row: row["at"])
        data = b"".join((row["raw"].encode() if "raw" in row else canonical(_stamped(row, ahead))) + b"\n" for row in ordered)
        (folder / "streams" / f"{name}.jsonl").write_bytes(data)
        sealed[name] = {"n": len(rows), "sha256": _sha256(data), "torn_bytes": script.get("torn", {}).get(name, 0)}
        if name in script.get("absent", ()):
            sealed[name]["absent"] = True
    return sealed


def _stamped(row: Mapping[str, Any], ahead: int) -> dict[str, Any]:
    """The row as its node writes it; ``stamp`` is the time that a lying node puts on it."""
    told = {key: value for key, value in row.items() if key != "stamp"}
    return {**told, "at": row.get("stamp", row["at"]) + ahead}


def _damage(folder: Path, damage: Mapping[str, Any]) -> None:
    """What may happen to a folder afterwards."""
    if "delete" in damage:
        (folder / damage["delete"]).unlink()
    elif "cut" in damage:
        file = folder / damage["cut"]
        file.write_bytes(file.read_bytes()[:-damage["bytes"]])
    elif "append" in damage:
        with (folder / damage["append"]).open("ab") as stream:
            stream.write(damage["text"].encode())
    elif damage.get("unseal"):
        file = folder / "recording.jsonl.gz"
        lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
        kept = [line for line in lines if orjson.loads(line)["line"] != "seal"]
        file.write_bytes(gzip.compress(b"".join(kept), mtime=0))
    else:
        raise SpecError(f"no such damage: {damage}")


# ---- edits ------------------------------------------------------------------------------------------------


def _edit(script: Script, edit: Mapping[str, Any]) -> None:
    """Change one place of a script; ``at`` is a path of keys and list positions joined by slashes."""
    *path, last = edit["at"].split("/")
    place: Any = script
    for part in path:
        place = place[_key(place, part)]
    key = _key(place, last)
    if edit.get("remove"):
        del place[key]
    elif "add" in edit:
        place[key].append(edit["add"])
    elif "extend" in edit:
        place[key].extend(edit["extend"])
    elif "replace" in edit:
        old, new = edit["replace"]
        if old not in place[key]:
            raise ValueError(f"{old!r} is not there")
        place[key] = place[key].replace(old, new)
    else:
        place[key] = edit["to"]


def _key(place: Any, part: str) -> Any:
    """A key of a mapping; in a list a position, or ``field=value`` for the first entry that has it."""
    if not isinstance(place, list):
        return part
    field, equals, value = part.partition("=")
    if not equals:
        return int(part)
    return next(index for index, each in enumerate(place) if str(each.get(field)) == value)


def _yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as why:
        raise SpecError(f"{file}: cannot be read: {why}") from why


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
