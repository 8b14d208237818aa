"""``drillproof init``: a stack, a steady-state check and a first drill for a system of one's own, from what is known of it.

It starts nothing and looks at nothing but the status URL that it was given, once. What it writes passes
``drillproof check``; that is tried before the first file appears.
"""

from __future__ import annotations

import argparse
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from harness import console, files, texts
from harness.contracts.reading import Unreadable, read_object
from harness.contracts.source import SourceError, read_url
from harness.drill.text import Specs, check, load
from harness.errors import TextError, UsageError
from harness.pack.pages import Ready, page
from harness.session import ROOT
from harness.world.stack import PORT_MAX, load_stack

LOOK_MS = 1_000
PORT = "http"
SCHEMES = ("", "tcp", "http", "ws")
TELLING = ("mode", "state", "status", "ready", "healthy", "ok")
"""Names that a field saying "all is well" often has, the most telling first."""

_INTERPRETER = re.compile(r"(python|node|java|ruby|php|perl|bash|sh|deno|bun)[0-9.]*\Z|\{python\}\Z")
_WORD = re.compile(r"[^A-Za-z0-9]+")
_NODE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}\Z")
_FIELD = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*\Z")
_LOCAL = ("127.0.0.1", "localhost")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\-]{0,254}\Z")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that the system dials: by URL where a scheme was given, else by ``host:port``. It is on this machine, or an
    image of its own, of which the address names the port alone."""

    name: str
    scheme: str
    address: str
    image: str | None = None

    def link(self) -> dict[str, Ready | None]:
        variable = f"{self.name.upper()}_{'URL' if self.scheme else 'ADDRESS'}"
        url = f"{self.scheme}://{{address}}" if self.scheme else "{address}"
        return {"name": Ready(self.name), "env": Ready(variable), "url": _plain(url), "address": Ready(self.address),
                "image": _plain(self.image) if self.image else None, "inside": Ready(self.address.rpartition(":")[2])}


def main(args: argparse.Namespace) -> int:
    """Write the files, say what was assumed and what to type next. Raises UsageError."""
    if args.image and args.upstream:
        raise UsageError("--upstream: a container reaches nothing but what the run has made; name what is dialled by its "
                         "image: --upstream-image quotes=http://IMAGE:PORT")
    if args.upstream_image and not args.image:
        raise UsageError("--upstream-image: beside a command there are no containers; name a server on this machine: "
                         "--upstream quotes=http://127.0.0.1:9100")
    upstreams = _upstreams([*args.upstream, *args.upstream_image], images=bool(args.image))
    target = _status_target(args.status_url)
    seen, told = _look(args.status_url)
    steady, guess = _steady(args.steady, seen)
    anew = next((name for name, value in (seen or {}).items() if "uptime" in name.lower() and _FIELD.match(name)
                 and isinstance(value, int | float) and not isinstance(value, bool)), None)
    node, upstream = _node_name(args), upstreams[0].name if upstreams else None
    first = f"1_{upstream}_stands_still" if upstream else f"1_{node}_killed"
    values: dict[str, Any] = {
        "name": Ready(node), "node": Ready(node), "port": Ready(PORT),
        "path": _plain(target["path"]), "inside": Ready(target["port"]),
        "listen_env": Ready(_matching(args.listen_env, _VARIABLE, "--listen-env", "the name of a variable")),
        "image": _plain(_matching(args.image, _IMAGE, "--image", "the name of an image")) if args.image else None,
        "command": _flow(_words(args.own_command)) if args.own_command else None,
        "links": [each.link() for each in upstreams], "link": Ready(upstream) if upstream else None,
        "steady": _flow(steady), "safe": _flow(_fields("--safe", args.safe)) if args.safe else None,
        "guess": Ready(guess), "drill": Ready(first), "anew": Ready(anew) if anew else None}
    made = {"stack.yaml": page("own_stack.yaml.j2", **values),
            "drills/0_steady_state.yaml": page("own_steady.yaml.j2", **values),
            f"drills/{first}.yaml": page("own_first.yaml.j2", **values)}
    _must_be_right(made)
    _write(Path(args.out), made, args.force)
    notes = _notes(args, told, guess, insensitive=not upstreams and not anew)
    print("\n".join(console.plain(line) for line in _says(args, made, notes, first)))
    return 0


# ---- reading what was given -------------------------------------------------------------------------------


def _matching(text: str, pattern: re.Pattern[str], option: str, expected: str) -> str:
    if not pattern.match(text):
        raise UsageError(f"{option}: found {text!r}, expected {expected}")
    return text


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as why:
        raise UsageError(f"--command: found {command!r}, expected words as a shell reads them: {why}") from None
    if not words:
        raise UsageError("--command: found nothing, expected what starts the system")
    if not all(word.isprintable() for word in words):
        raise UsageError(f"--command: found {command!r}, expected printable words")
    return words


def _program(words: Sequence[str]) -> str:
    """What a command runs; of an interpreter, the file that it is given."""
    files = [word for word in words[1:] if Path(word).suffix and not word.startswith("-")]
    return Path(files[0] if files and _INTERPRETER.match(Path(words[0]).name) else words[0]).stem


def _node_name(args: argparse.Namespace) -> str:
    if args.name is not None:
        return _matching(args.name, _NODE, "--name", "small letters, digits and _, beginning with a letter")
    last = args.image.rpartition("/")[2].partition(":")[0].partition("@")[0] if args.image else \
        _program(_words(args.own_command))
    name = _WORD.sub("_", last).strip("_").lower()[:40]
    return name if _NODE.match(name) else "system"


def _status_target(url: str) -> dict[str, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme != "http" or host not in _LOCAL:
        raise UsageError(f"--status-url: found {url!r}, expected an address on this machine such as "
                         "http://127.0.0.1:8080/health; a drill never reaches beyond it")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return {"path": path, "port": str(port)}


def _upstreams(given: Sequence[str], images: bool) -> list[Upstream]:
    option = "--upstream-image" if images else "--upstream"
    found: list[Upstream] = []
    for each in given:
        name, _, address = each.rpartition("=")
        scheme, _, place = address.rpartition("://")
        host, _, port = place.rstrip("/").rpartition(":")
        known = _IMAGE.match(host) if images else host in _LOCAL
        if not known or scheme not in SCHEMES or not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > PORT_MAX:
            expected = "an image and its port, such as quotes=http://order-quotes:9100" if images else \
                "a server on this machine, which no drill leaves, such as quotes=http://127.0.0.1:9100 or 127.0.0.1:5432"
            raise UsageError(f"{option}: found {each!r}, expected {expected}")
        name = _matching(name or f"upstream_{port}", _NODE, option, "a name of small letters, digits and _")
        if name in {one.name for one in found}:
            raise UsageError(f"{option}: found the name {name!r} twice, expected one of its own for each")
        found.append(Upstream(name, "" if scheme == "tcp" else scheme, f"127.0.0.1:{int(port)}", host if images else None))
    return found


def _fields(option: str, given: Sequence[str]) -> dict[str, Any]:
    """``mode=running`` pairs; a value that reads as JSON is that value, all else is text."""
    found: dict[str, Any] = {}
    for each in given:
        path, equals, value = each.partition("=")
        if not equals or not _FIELD.match(path):
            raise UsageError(f"{option}: found {each!r}, expected FIELD=VALUE such as mode=running")
        try:
            found[path] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[path] = value
    return found


def _look(url: str) -> tuple[Mapping[str, Any] | None, str]:
    """One GET: what answers there now, and how to say it."""
    try:
        document = read_object(read_url(url, LOOK_MS))
    except SourceError:
        return None, f"nobody answers at {url} now, so nothing was looked at"
    except Unreadable as why:
        return None, f"{url} answers, but {why}: a surface is a JSON object"
    return document, f"{url} answers with {console.counted(len(document), 'field')}: {', '.join(list(document)[:8])}"


def _steady(given: Sequence[str], seen: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """What holds when all is well, and the words by which a guess admits that it is one."""
    if given:
        return _fields("--steady", given), ""
    plain = {name: value for name, value in (seen or {}).items() if isinstance(value, str | bool) and _FIELD.match(name)}
    name = next((each for each in TELLING if each in plain), None)
    if name is not None:
        return {name: plain[name]}, "; guessed from what it said to `init`"
    return {"ok": True}, "; GUESSED: put in the field by which it says so"


# ---- writing ----------------------------------------------------------------------------------------------


def _plain(text: str) -> Ready:
    """A text as a YAML scalar, in quotes."""
    return Ready(orjson.dumps(text).decode())


def _flow(value: Any) -> Ready:
    """A value as YAML on one line: JSON, with quotes only where YAML needs them."""
    if isinstance(value, Mapping):
        return Ready("{" + ", ".join(f"{_scalar(key)}: {_flow(each)}" for key, each in value.items()) + "}")
    if isinstance(value, list):
        return Ready("[" + ", ".join(map(_flow, value)) + "]")
    return _scalar(value)


def _scalar(value: Any) -> Ready:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./\-]*", value):
        try:
            if texts.load(b"a: " + value.encode(), "init") == {"a": value}:
                return Ready(value)
        except TextError:
            pass  # ``no``, ``on``, ``null``: in quotes it is the text that was meant
    return Ready(orjson.dumps(value).decode())


def _must_be_right(made: Mapping[str, bytes]) -> None:
    """What is written passes ``drillproof check``. Raises UsageError with what does not."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _lay(folder, made)
        try:
            stack = load_stack(folder / "stack.yaml")
            specs = Specs.of(ROOT, stack, {})
            problems = [str(each) for name in made if name.startswith("drills/")
                        for each in check(load(folder / name, specs), specs)]
        except UsageError as why:
            problems = [str(why)]
    if problems:
        said = "; ".join(problems).replace(f"{place}/", "")
        raise UsageError(f"what was given does not make a drill: {said}")


def _lay(folder: Path, made: Mapping[str, bytes]) -> None:
    for name, data in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files.replace(folder / name, data)


def _write(folder: Path, made: Mapping[str, bytes], force: bool) -> None:
    there = [name for name in made if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder / there[0]}: is there already; --force replaces it" +
                         (f", and {', '.join(there[1:])}" if there[1:] else ""))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: is no folder")
    _lay(folder, made)


def _notes(args: argparse.Namespace, told: str, guess: str, insensitive: bool) -> list[str]:
    """What a person should know before the first run."""
    found = [f"Looked: {told}."]
    if guess:
        found.append("The steady state is a guess: put in the right field.")
    if args.upstream:
        found.append("Start the upstreams yourself before a run; it breaks the way to them, not them.")
    if insensitive:
        found.append("The first drill passes as a placebo, too, until it names a field that begins anew at a start.")
    return found


def _says(args: argparse.Namespace, made: Mapping[str, bytes], notes: Sequence[str], first: str) -> list[str]:
    out = Path(args.out)
    enter = [] if out.resolve() == Path.cwd() else [f"  cd {shlex.quote(args.out)}"]
    world = " --world docker" if args.image else ""
    return [*(f"wrote {out / name}" for name in made), "", *notes, "", "Next:", *enter,
            "  drillproof check                        # reads the stack and the drills, runs nothing",
            f"  drillproof run{world}{' ' * (25 - len(world))} # starts the system, breaks it, judges it",
            f"  drillproof pack own{world}{' ' * (20 - len(world))} # evidence that can be checked without trusting anybody",
            "  drillproof verify evidence/own",
            f"  drillproof run {first} --placebo{world}     # without the force: a promise must FAIL"]
