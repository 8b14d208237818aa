"""The words of a drill file, as data: which keys each clause has and what stands there.

The reader (``text``), the writer (``text.dump``) and the schema (``schema``) all walk these tables, so a word
cannot be known to one and not to another. Choices come from the model's own literals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from harness import limits
from harness.drill.model import Disk, Effect, Operator, RawToxic, Toward, WorldName

Kind = Literal["text", "id", "name", "file", "path", "mark", "duration", "offset", "signed", "count", "flag", "percent",
               "choice", "predicate", "json", "object", "headers", "numbers", "status", "crash", "bound", "ppm", "ratio",
               "moment", "content"]
"""duration: above zero · offset: zero or more · signed: may be negative · count: an integer above zero ·
bound: an integer from zero · ppm: parts per million, may be negative · ratio: above 0 and at most 1 · crash: a crash point ·
moment: of UTC · content: what stands in a file, whatever it is"""


@dataclass(frozen=True, slots=True)
class Part:
    """One key of a clause."""

    kind: Kind
    about: str
    required: bool = False
    choices: tuple[str, ...] = ()


def choices_of(model: type, field: str) -> tuple[str, ...]:
    """The literal values of a model's field, so that the grammar repeats none of them."""
    return get_args(get_type_hints(model)[field])


Clause = Mapping[str, Part]

EFFECTS: tuple[Effect, ...] = get_args(Effect)
OPERATORS: tuple[Operator, ...] = get_args(Operator)
WORLD_NAMES: tuple[WorldName, ...] = get_args(WorldName)

AMOUNT_OF_EFFECT: Mapping[str, tuple[str, Part]] = {
    "delay": ("by", Part("duration", "how much later every byte arrives", required=True)),
    "throttle": ("kilobytes_per_s", Part("count", "kilobytes (1000 B) a second", required=True)),
    "fragment": ("bytes", Part("count", "bytes a piece", required=True)),
    "truncate": ("bytes", Part("count", "bytes until the connection closes", required=True)),
}


def effect_clause(effect: str) -> Clause:
    """The keys of ``stall: {link, toward, …}``."""
    clause = {
        "link": Part("name", "the link of stack.yaml that is troubled", required=True),
        "toward": Part("choice", "which way the troubled bytes travel, seen from the dialling node",
                       choices=get_args(Toward)),
    }
    if effect in AMOUNT_OF_EFFECT:
        key, part = AMOUNT_OF_EFFECT[effect]
        clause[key] = part
    return clause


WORLD = Part("choice", "a world that the drill is meant for", choices=WORLD_NAMES)

_NODE = Part("name", "the node of stack.yaml", required=True)

_FILE = Part("file", "where in the node's data folder, relative", required=True)

_CALL: Clause = {
    "node": _NODE,
    "port": Part("name", "the node's port of stack.yaml", required=True),
    "method": Part("choice", "the HTTP method", required=True,
                   choices=("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")),
    "path": Part("path", "the HTTP path and query", required=True),
    "headers": Part("headers", "header values; ${secret:NAME} stands for a secret of the run"),
    "body": Part("json", "the JSON body"),
    "expect": Part("status", "the HTTP status that says it was taken"),
}

VERBS: Mapping[str, Clause] = {
    **{effect: effect_clause(effect) for effect in EFFECTS},
    "toxic": {
        "link": Part("name", "the link of stack.yaml", required=True),
        "type": Part("text", "Toxiproxy's name of the toxic", required=True),
        "stream": Part("choice", "Toxiproxy's stream", required=True, choices=choices_of(RawToxic, "stream")),
        "attributes": Part("numbers", "Toxiproxy's attributes of that toxic"),
    },
    "kill": {
        "node": _NODE,
        "build": Part("name", "the build that healing starts; the one that died if absent"),
        "before": Part("crash", "the outgoing value before which the node dies; at once if absent"),
    },
    "stop": {"node": _NODE, "build": Part("name", "the build that healing starts; the one that was stopped if absent")},
    "out_of_memory": {"node": _NODE, "build": Part("name", "the build that healing starts; the one that died if absent")},
    "restart": {"node": _NODE},
    "pause": {"node": _NODE},
    "starve": {
        "node": _NODE,
        "percent": Part("percent", "of the processor time that it used before, so much is left to it", required=True),
    },
    "disconnect": {"node": _NODE},
    "deploy": {"node": _NODE, "build": Part("name", "the build to start over the same data", required=True)},
    "clock": {
        "node": _NODE,
        "step": Part("signed", "how far the wall clock jumps, such as 30s or -500ms"),
        "to": Part("moment", "what the wall clock shows first instead, such as \"2026-11-20T14:29:57Z\""),
        "drift_ppm": Part("ppm", "how much too fast it runs, in parts per million; may be negative"),
    },
    "disk": {
        "node": _NODE,
        "kind": Part("choice", "what happens to durable writes", required=True, choices=choices_of(Disk, "kind")),
        "by": Part("duration", "for slow: how long each sync takes"),
    },
    "fill": {
        "node": _NODE,
        "to": Part("ratio", "the share of the node's data disk that is used then; 1 leaves no room", required=True),
        "unlinked": Part("flag", "true: by a file that is deleted and held open, which no sum over files sees"),
        "volume": Part("name", "a volume of the stack that the node shares, instead of its own data disk"),
    },
    "overwrite": {
        "node": _NODE,
        "file": _FILE,
        "body": Part("json", "the JSON document that is written"),
        "text": Part("content", "the text that is written, instead of a JSON document"),
        "every": Part("duration", "again and again, so often; once if absent"),
        "in_place": Part("flag", "true: cut to nothing and written where it stands; put in its place whole if absent"),
    },
    "remove": {"node": _NODE, "file": _FILE},
    "switch": {
        "node": _NODE,
        "name": Part("name", "the switch on the node's control port", required=True),
        "arguments": Part("object", "the switch's arguments"),
    },
    "call": _CALL,
}

CRASH_POINTS = ("send", "append", "replace", "request")
"""``kill: {before: {send: private/buy, nth: 2}}``: the meanings of an outgoing value."""

REPLACE_STEPS = ("write_temporary", "sync_temporary", "rename", "sync_folder", "truncate", "write_half", "write")
"""``{replace: state/nav.json, step: rename}``: the steps by which a node may give a small file its content."""

ACTS: Mapping[str, Clause] = {
    "call": _CALL,
    "drop": {
        "node": _NODE,
        "file": _FILE,
        "body": Part("json", "the JSON document to put there"),
    },
}

_SINCE = Part("mark", "judged from this mark on; from the beginning if absent")
_UNTIL = Part("mark", "judged up to this mark; to the end if absent")

PROMISES: Mapping[str, Clause] = {
    "within": {
        "within": Part("duration", "at most so long after the mark", required=True),
        "after": Part("mark", "the mark it counts from", required=True),
        "stays_until": Part("mark", "and stays true until this mark"),
    },
    "always": {
        "always": Part("predicate", "what must hold in every sample", required=True),
        "while": Part("predicate", "only samples in which this holds are asked"),
        "since": _SINCE,
        "until": _UNTIL,
    },
    "never": {
        "never": Part("name", "an event of specs/events.yaml", required=True),
        "while": Part("predicate", "while this holds", required=True),
    },
    "only_after": {
        "only_after": Part("name", "an event of specs/events.yaml", required=True),
        "since": Part("mark", "the event must come after this mark", required=True),
        "becomes": Part("predicate", "what may become true only after the event", required=True),
    },
    "count": {
        "count": Part("name", "an event of specs/events.yaml", required=True),
        "at_least": Part("bound", "so often or more"),
        "at_most": Part("bound", "so often or less"),
        "exactly": Part("bound", "exactly so often"),
        "since": _SINCE,
        "until": _UNTIL,
    },
    "answers": {
        "answers": Part("status", "the HTTP status of the answer", required=True),
        "to": Part("mark", "a call of this drill, stimulus or fault", required=True),
    },
}
"""The first key of each clause says which form it is. ``within`` also carries its predicate inline, by surface."""

FAULT: Clause = {
    "at": Part("offset", "when, counted from the moment the given has held", required=True),
    "for": Part("duration", "how long until it is healed", required=True),
}
STIMULUS: Clause = {"at": Part("offset", "when, counted from the moment the given has held", required=True)}
GIVEN: Clause = {
    "for": Part("duration", "how long the steady state must hold", required=True),
    "within": Part("duration", "how long it may take to be reached", required=True),
    "idle": Part("flag", "true when this drill wants a system at rest: no order is needed before zero"),
    "one_day": Part("flag", "true when it counts on what the system counts by the day (UTC): where the day would end before "
                            "the drill does, it waits for the next one, and for the steady state once more"),
}
CONVERGE: Clause = {
    "within": Part("duration", "after everything is healed, how long until it begins", required=True),
    "for": Part("duration", "and how long it must last", required=True),
    "latched": Part("flag", "true when the drill ends blocked on purpose"),
}
GOLDEN: Clause = {
    "fixture": Part("id", "a golden of the surface's contract: a file of fixtures/status or fixtures/ops_status, without .json",
                    required=True),
    "surface": Part("name", "whose documents it is compared with; the one under csp_status if absent"),
    "reached_within": Part("duration", "at most so long after the mark", required=True),
    "after": Part("mark", "the mark it counts from; the first fault if absent"),
}

BUILT_IN_MARKS = ("started", "given", "healed", "converge", "stopped")
RESERVED_MARKS = (*BUILT_IN_MARKS, "disturbed")
"""A recording's own marks: no fault and no stimulus has such a name. No promise counts from a disturbance."""
TOP = ("drill", "title", "why", "proves", "worlds", "sample", "grain", "given", "faults", "stimuli", "promises", "golden",
       "converge")
TOP_REQUIRED = ("drill", "title", "sample", "given", "promises", "converge")

ID = r"[a-z][a-z0-9_]{0,63}"
DRILL_NAME = r"[a-z0-9][a-z0-9_]{0,79}"
NAME = r"[A-Za-z][A-Za-z0-9_.\-]{0,79}"
ITEM = r"[A-Z0-9][A-Za-z0-9_.\-]{0,79}"
FIELD_PATH = r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,7}"
RELATIVE_FILE = r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,7}"
HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~\-]{1,80}"
HEADER_VALUE = r"[\x20-\x7e]{0,1000}"
HTTP_PATH = r"/(?!.*\.\.)[\x21-\x7e]{0,500}"
DURATION = r"[0-9]{1,9}(ms|s|m|h)|policy\.[A-Za-z0-9_]+"
DURATIONS = rf"({DURATION})( \+ ({DURATION}))*"
SIGNED_DURATION = r"-?[0-9]{1,9}(ms|s|m|h)"
MOMENT = r"20[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?Z"
UNIT_MS: Mapping[str, int] = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}

COUNT_MAX = 1_000_000_000
"""Of what is counted in a drill, bytes and events alike; more is a slip of the finger."""

CONTENT_CHARACTERS_MAX = 10_000
"""What a drill writes into a small file; a longer one is a fixture, not a drill."""

DRIFT_PPM_MAX = 1_000_000
"""A clock at twice its speed; beyond it every timeout of the operating system misbehaves too."""

PROMISES_MAX = 64
"""As many as faults: more cannot be explained on one page."""

MS_MAX = limits.DRILL_DURATION_MS_MAX

MARK = rf"{ID}(\.healed)?"
