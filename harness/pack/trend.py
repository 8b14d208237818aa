"""The packs of a phase night after night, as one page: how each drill ended, and how long it took to be safe.

Inline SVG without script, font or link, like the pack's own report. Packs that are not what their manifests list are left
out and named. Only packs of one world under one policy share an axis, and of the same sets of drills: those of the newest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape, quoteattr

from markupsafe import Markup

from harness.errors import UsageError
from harness.pack.listing import drill_order
from harness.pack.pages import page
from harness.pack.plain import visible
from harness.pack.shelf import Drill, Pack, shelf, told_time

PACKS_MAX = 60
"""More than two months of nights become dots too small to read."""
ENOUGH = 5
"""With fewer nights before it, nothing is called the longest yet."""

COLOURS = {"PASS": "#2f7d54", "FAIL": "#b42318", "INCONCLUSIVE": "#d99a1c"}
OTHER, BAND, LINE, INK, FAINT, GRID, BUILD = "#7b8794", "#e3efe8", "#86b59b", "#1f2933", "#7b8794", "#e4e7eb", "#c3cdd8"
WIDTH, LEFT, RIGHT, HEIGHT = 560, 14, 14, 58
TOP, FLOOR = 9, 46
FONT = 'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"'


@dataclass(frozen=True, slots=True)
class Course:
    """One drill over the packs; None where a pack does not hold it."""

    name: str
    title: str
    nights: tuple[Drill | None, ...]

    @property
    def newest(self) -> Drill | None:
        return self.nights[-1]

    @property
    def before(self) -> list[int]:
        """The times to safe of the nights before the newest that PASSED."""
        return [each.time_to_safe_ms for each in self.nights[:-1]
                if each is not None and each.says == "PASS" and each.time_to_safe_ms is not None]

    @property
    def says(self) -> str:
        return "not in the newest pack" if self.newest is None else self.newest.says

    @property
    def usual(self) -> str:
        """What is usual, in words."""
        if not self.before:
            return "no night before"
        return f"{told_time(min(self.before))} to {told_time(max(self.before))}, half by {told_time(int(median(self.before)))}"

    @property
    def remark(self) -> str:
        """What an owner should look at, or nothing."""
        bad = sum(each is not None and each.says != "PASS" for each in self.nights)
        told = [f"not passed {bad} of {len(self.nights)} times"] if bad else []
        now = self.newest.time_to_safe_ms if self.newest else None
        if now is not None and len(self.before) >= ENOUGH and now > max(self.before):
            told.append("longest yet")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Trend:
    """Everything that the page is made of."""

    phase: int
    packs: tuple[Pack, ...]
    courses: tuple[Course, ...]
    notes: tuple[str, ...]

    @property
    def newest(self) -> Pack:
        return self.packs[-1]

    @property
    def headline(self) -> str:
        """The newest night in one sentence."""
        pack = self.newest
        bad = [each.name for each in pack.drills.values() if each.says != "PASS"]
        tail = f"; not passed: {', '.join(bad)}" if bad else ""
        silent = f", {pack.not_run} not run" * bool(pack.not_run)
        return f"{pack.passed} of {len(pack.drills)} drills passed in the newest pack{silent}{tail}"

    @property
    def days(self) -> str:
        """From when to when."""
        first, last = self.packs[0].utc[:10], self.newest.utc[:10]
        return last if first == last else f"{first} to {last}"

    @property
    def whole(self) -> int:
        """How many nights had nothing but PASS."""
        return sum(pack.passed == len(pack.drills) for pack in self.packs)

    @property
    def builds(self) -> int:
        return len({pack.about["system"] for pack in self.packs})

    @property
    def remarks(self) -> list[Course]:
        return [each for each in self.courses if each.remark]


def trend(evidence: Path, phase: int, last: int) -> Trend:
    """The newest ``last`` packs of a phase. Raises UsageError where there is none."""
    found, unread = shelf(evidence, phase)
    notes = [f"{name} is left out: {why}" for name, why in unread.items()]
    notes += [f"{pack.name} is left out, it is not intact: {pack.findings[0]}" for pack in found if pack.findings]
    whole = [pack for pack in found if not pack.findings]
    if not whole:
        raise UsageError(f"{evidence}: no pack of phase {phase} that could be shown" + "".join(f"; {each}" for each in notes))
    newest = whole[-1]
    alike = [pack for pack in whole if _kind(pack) == _kind(newest)]
    if others := len(whole) - len(alike):
        notes.append(f"{others} more of other worlds, policies or sets")
    packs = _once(alike)[-min(last, PACKS_MAX):]
    names = sorted({name for pack in packs for name in pack.drills}, key=drill_order)
    courses = [Course(name, next(pack.drills[name].title for pack in reversed(packs) if name in pack.drills),
                      tuple(pack.drills.get(name) for pack in packs)) for name in names]
    return Trend(phase, tuple(packs), tuple(courses), tuple(map(visible, notes)))


def _kind(pack: Pack) -> tuple[str, str, frozenset[str]]:
    return pack.world, pack.about["policy"], pack.sets


def _once(packs: Sequence[Pack]) -> list[Pack]:
    """Of packs of the very same runs (a sealed one and its unsealed twin) the newest, in its place."""
    newest_first: dict[frozenset[str], Pack] = {}
    for pack in reversed(packs):
        newest_first.setdefault(pack.run_ids, pack)
    return [*reversed(newest_first.values())]


def trend_page(found: Trend) -> bytes:
    """The page."""
    return page("trend.html.j2", trend=found, course=_course, overview=_overview, word=_word)


# ---- pictures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where each pack stands, in tenths of a pixel: the newest at the right edge, whatever their number."""

    count: int

    @property
    def step(self) -> int:
        return min(400, 10 * (WIDTH - LEFT - RIGHT) // max(1, self.count - 1)) if self.count > 1 else 400

    def x(self, place: int) -> float:
        return (10 * (WIDTH - RIGHT) - (self.count - 1 - place) * self.step) / 10


def _open(height: int, label: str) -> list[str]:
    return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" {FONT} aria-label={quoteattr(visible(label))}>']


def _builds(packs: Sequence[Pack], slots: _Slots, top: int, floor: int) -> Iterator[str]:
    """A hairline before each pack that tested another system than the one before."""
    for place in range(1, len(packs)):
        if packs[place].about["system"] != packs[place - 1].about["system"]:
            x = slots.x(place) - slots.step / 20
            yield (f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{floor}" stroke="{BUILD}" stroke-dasharray="2 2">'
                   f"<title>another build of the system from here on</title></line>")


def _overview(packs: Sequence[Pack]) -> Markup:
    """A column a pack: how many drills passed, proved nothing, failed; dates below."""
    slots, tall, base = _Slots(len(packs)), 56, 66
    most = max(len(pack.drills) for pack in packs)
    parts = _open(92, "how many drills passed in each pack")
    parts += _builds(packs, slots, 6, base)
    wide = max(3.0, min(22.0, slots.step / 10 - 4))
    for place, pack in enumerate(packs):
        counts, y = Counter(each.says for each in pack.drills.values()), float(base)
        told = escape(visible(f"{pack.utc[:16]} · {', '.join(f'{n} {word}' for word, n in sorted(counts.items()))}"))
        for word in ("PASS", "INCONCLUSIVE", "FAIL", *sorted(counts.keys() - COLOURS.keys())):
            high = tall * counts[word] / most
            y -= high
            parts += [f'<rect x="{slots.x(place) - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" '
                      f'fill="{COLOURS.get(word, OTHER)}"><title>{told}</title></rect>'] if high else []
    parts.append(f'<line x1="0" y1="{base}.5" x2="{WIDTH}" y2="{base}.5" stroke="{GRID}"/>')
    for place, anchor in _dated(len(packs)):
        x = WIDTH if anchor == "end" else slots.x(place)
        parts.append(f'<text x="{x:.1f}" y="{base + 17}" font-size="11" fill="{FAINT}" text-anchor="{anchor}">'
                     f"{escape(packs[place].utc[5:10])}</text>")
    return Markup("\n".join((*parts, "</svg>")))  # noqa: S704 (made above, every value escaped)


def _dated(count: int) -> list[tuple[int, str]]:
    """Which packs have their date below: the newest, the oldest, and some between."""
    places = range(count - 1, -1, -max(2, count // 7))
    return [(place, "end" if place == count - 1 else "middle") for place in places]


def _course(found: Course, packs: Sequence[Pack]) -> Markup:
    """A drill's line: its times over what was usual, each night a dot in the colour of its verdict."""
    slots = _Slots(len(found.nights))
    times = [each.time_to_safe_ms for each in found.nights if each is not None and each.time_to_safe_ms is not None]
    top_ms = max(1, *times) * 5 // 4 if times else 1
    parts = _open(HEIGHT, f"{found.name}: time to safe in each pack")
    if found.before:
        high, low = (_y(each, top_ms) for each in (max(found.before), min(found.before)))
        left = slots.x(0) - 9
        parts.append(f'<rect x="{left:.1f}" y="{high - 3:.1f}" width="{WIDTH - left:.1f}" '
                     f'height="{low - high + 6:.1f}" fill="{BAND}" rx="3">'
                     f"<title>{escape(visible(found.usual))}</title></rect>")
    parts += [f'<line x1="0" y1="{FLOOR + 4}.5" x2="{WIDTH}" y2="{FLOOR + 4}.5" stroke="{GRID}"/>']
    parts += _builds(packs, slots, 3, FLOOR + 4)
    parts += _lines(found, slots, top_ms)
    for place, each in enumerate(found.nights):
        if each is not None:
            parts.append(_dot(each, packs[place], slots.x(place), top_ms, place == len(found.nights) - 1))
    return Markup("\n".join((*parts, "</svg>")))  # noqa: S704 (made above, every value escaped)


def _y(ms: int, top_ms: int) -> float:
    return FLOOR - (FLOOR - TOP) * ms / top_ms


def _lines(found: Course, slots: _Slots, top_ms: int) -> Iterator[str]:
    """From night to night, where both have a time."""
    points = [(slots.x(place), _y(each.time_to_safe_ms, top_ms)) if each and each.time_to_safe_ms is not None else None
              for place, each in enumerate(found.nights)]
    for one, other in zip(points, points[1:], strict=False):
        if one and other:
            yield (f'<line x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}" stroke="{LINE}" '
                   'stroke-width="1.4"/>')


def _dot(drill: Drill, pack: Pack, x: float, top_ms: int, newest: bool) -> str:
    """A PASS is a dot; anything else a larger square, so that it is seen without colour, too."""
    facts = (pack.utc[:16], drill.says, drill.safe_after, f"{drill.missed} missed", pack.name)
    told = escape(visible(" · ".join(facts)))
    y = _y(drill.time_to_safe_ms, top_ms) if drill.time_to_safe_ms is not None else FLOOR
    fill = COLOURS.get(drill.says, OTHER)
    if drill.says != "PASS":
        return (f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{fill}" stroke="#ffffff">'
                f"<title>{told}</title></rect>")
    ring = f' stroke="{INK}" stroke-width="1.5"' if newest else ' stroke="#ffffff"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if newest else 3.2}" fill="{fill}"{ring}><title>{told}</title></circle>'


def _word(says: str) -> Markup:
    known: Mapping[str, str] = {word: word for word in COLOURS}
    return Markup('<span class="word {}">{}</span>').format(known.get(says, ""), visible(says, 40))
