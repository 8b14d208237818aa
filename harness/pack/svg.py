"""A drill's timeline as a picture: what each surface said, faults, orders, on one axis in seconds from zero.

Written by hand as SVG, without script, style sheet, font or link, so that it shows the same in a browser, in a
report and on paper. A pure function of the story: whole numbers of tenths of a pixel, no dates, no ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from harness.pack.plain import visible

WIDTH, LEFT, RIGHT = 960, 150, 16
BAND, GAP, TOP, AXIS = 20, 8, 10, 34
FONT = 'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"'
INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
SMALL, LARGE, BOLD = 64, 84, 8
"""About what a small and a large letter of the labels take, and by how much more bold ones, in tenths of a pixel."""
LABEL_MAX = 300
"""So many characters of a label stand in its title; a system may say a megabyte."""
LETTERS_MIN = 5
"""A label that would be cut to fewer letters is left to the band's title."""
COLOURS = {
    "Active": "#3f9b6b", "ReduceOnly": "#e0a526", "Kill": "#c43d3d", "latched": "#7d5bb5", "clear": "#dfe6ec",
    "silent": "#b8c1cc", "fault": "#d9692f", "act": "#3b7dc4",
    "OK": "#3f9b6b", "DEGRADED": "#e0a526", "HALTED": "#c43d3d", "MARKET_CLOSED": "#6b8fb5", "OFFLINE": "#52606d",
    "UNKNOWN": "#7d5bb5", "WARN": "#e0a526", "DEFENSIVE": "#d9692f", "NORMAL": "#3f9b6b", "DRAWDOWN": "#d9692f",
    "RECOVERY": "#6b8fb5", "fresh": "#d3e8dc", "stale": "#e0a526", "unreadable": "#c43d3d", "in place": "#c43d3d",
    "not done": "#f3ddcf",
}
DARK_INK = frozenset({"clear", "silent", "ReduceOnly", "DEGRADED", "WARN", "fresh", "stale", "not done"})
"""Colours on which a label is written dark."""
TICKS = {"opened": "#3b7dc4", "reducing": "#3f9b6b", "rejected": "#c43d3d", "refused": "#e0a526", "filled": "#1f2933"}
MARKS = {"FAIL": "#b42318", "INCONCLUSIVE": "#9a6700"}
STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)


@dataclass(frozen=True, slots=True)
class Band:
    """Something that lasted: [begin, end) in ms, what it is called and its colour's name."""

    begin_ms: int
    end_ms: int
    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of the picture: bands, or ticks at moments (ms), under a name; a heading has neither."""

    name: str
    bands: tuple[Band, ...] = ()
    ticks: tuple[int, ...] = ()
    colour: str = INK
    heading: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that matters in every lane: a line through all of them, with words above."""

    at_ms: int
    verdict: str
    says: str


def draw(title: str, lanes: Sequence[Lane], begin_ms: int, end_ms: int, zero_ms: int, marks: Sequence[Mark] = ()) -> str:
    """The whole picture as an ``<svg>`` element: the words of its marks, below them the lanes, at the foot the axis."""
    scale = _Scale(begin_ms, max(end_ms, begin_ms + 1), zero_ms)
    under = TOP + len(marks) * BAND + (GAP if marks else 0)
    height = under + len(lanes) * (BAND + GAP) + AXIS
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {FONT} '
             f"aria-label={quoteattr(visible(title))}>",
             f"<title>{_text(title)}</title>",
             f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>']
    parts += _axis(scale, height)
    for row, lane in enumerate(lanes):
        parts += _lane(lane, under + row * (BAND + GAP), scale)
    for row, mark in enumerate(marks):
        parts += _mark(mark, TOP + row * BAND, height - AXIS + 6, scale)
    x = scale.x(zero_ms)
    parts.append(f'<line x1="{x}" y1="{TOP - 4}" x2="{x}" y2="{height - AXIS + 6}" stroke="{INK}" '
                 'stroke-dasharray="3 3"><title>zero: given has held</title></line>')
    return "\n".join((*parts, "</svg>"))


@dataclass(frozen=True, slots=True)
class _Scale:
    begin_ms: int
    end_ms: int
    zero_ms: int

    def tenths(self, at_ms: int) -> int:
        """Tenths of a pixel from the left edge, clamped to the picture."""
        inside = min(max(at_ms, self.begin_ms), self.end_ms) - self.begin_ms
        return 10 * LEFT + inside * 10 * (WIDTH - LEFT - RIGHT) // (self.end_ms - self.begin_ms)

    def x(self, at_ms: int) -> str:
        return _number(self.tenths(at_ms))


def _number(tenths: int) -> str:
    return f"{tenths // 10}.{tenths % 10}"


def _text(value: object, limit: int | None = None) -> str:
    return escape(visible(value, limit))


def _axis(scale: _Scale, height: int) -> list[str]:
    """Grid lines and their seconds, at most about ten."""
    span_s = (scale.end_ms - scale.begin_ms) // 1000
    step_ms = 1000 * next((each for each in STEPS_S if span_s <= 10 * each), STEPS_S[-1])
    first = -((scale.zero_ms - scale.begin_ms) // step_ms)
    last = (scale.end_ms - scale.zero_ms) // step_ms
    base = height - AXIS + 4
    parts = []
    for number in range(first, min(last, first + 200) + 1):
        x = scale.x(scale.zero_ms + number * step_ms)
        parts.append(f'<line x1="{x}" y1="{TOP - 4}" x2="{x}" y2="{base}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x}" y="{base + 16}" font-size="11" fill="{FAINT}" text-anchor="middle">'
                     f"{number * step_ms // 1000} s</text>")
    return parts


def _lane(lane: Lane, y: int, scale: _Scale) -> list[str]:
    if lane.heading:
        return [f'<text x="12" y="{y + 15}" font-size="11" font-weight="bold" fill="{FAINT}">{_text(lane.name, 60)}</text>',
                f'<line x1="12" y1="{y + BAND}" x2="{WIDTH - RIGHT}" y2="{y + BAND}" stroke="{FAINT}"/>']
    parts = [f'<text x="{LEFT - 10}" y="{y + 14}" font-size="12" fill="{INK}" text-anchor="end">'
             f"{_text(lane.name, 22)}</text>",
             f'<line x1="{LEFT}" y1="{y + BAND}" x2="{WIDTH - RIGHT}" y2="{y + BAND}" stroke="{GRID}"/>']
    for band in lane.bands:
        parts += _band(band, y, scale)
    parts += _ticks(lane, y, scale)
    for band in lane.bands:
        parts += _label(band, y, scale) if band.label else ()
    return parts


def _band(band: Band, y: int, scale: _Scale) -> Iterable[str]:
    begin = scale.tenths(band.begin_ms)
    width = max(30 if band.colour == "in place" else 10, scale.tenths(band.end_ms) - begin)
    fill = COLOURS.get(band.colour, FAINT)
    from_s, to_s = ((each - scale.zero_ms) / 1000 for each in (band.begin_ms, band.end_ms))
    yield (f'<rect x="{_number(begin)}" y="{y}" width="{_number(width)}" height="{BAND}" rx="2" fill="{fill}">'
           f"<title>{_text(band.label, LABEL_MAX)}: {from_s:.3f} s to {to_s:.3f} s</title></rect>")


def _label(band: Band, y: int, scale: _Scale) -> Iterable[str]:
    """What a band is called, as far as it fits (the whole of it is in the band's title), on a ground that keeps ticks off."""
    begin = scale.tenths(band.begin_ms)
    label = visible(band.label, LABEL_MAX)
    shown = _fitting(label, scale.tenths(band.end_ms) - begin - 80)
    if shown != label and len(shown) < LETTERS_MIN:
        return
    ink, ground = INK if band.colour in DARK_INK else "#ffffff", COLOURS.get(band.colour, FAINT)
    yield (f'<text x="{_number(begin + 60)}" y="{y + 14}" font-size="11" fill="{ink}" stroke="{ground}" stroke-width="3" '
           f'paint-order="stroke">{escape(shown)}</text>')


def _fitting(text: str, room: int, more: int = 0) -> str:
    """As much of a text as ``room`` tenths of a pixel hold, with an ellipsis where that is not all."""
    for index, letter in enumerate(text):
        room -= (LARGE if letter.isupper() or letter in "_mwMW" or not letter.isascii() else SMALL) + more
        if room < 0:
            return f"{text[:max(0, index - 1)]}…"
    return text


def _mark(mark: Mark, y: int, foot: int, scale: _Scale) -> Iterable[str]:
    """The line through all lanes, and its words at the side where there is more room."""
    x, colour = scale.tenths(mark.at_ms), MARKS.get(mark.verdict, FAINT)
    at_s = (mark.at_ms - scale.zero_ms) / 1000
    says = visible(f"{mark.verdict} at {at_s:.3f} s: {mark.says}", 2 * LABEL_MAX)
    left = x > 10 * (LEFT + WIDTH) // 2
    shown = _fitting(says, x - 180 if left else 10 * (WIDTH - RIGHT) - x - 60, BOLD)
    yield (f'<line x1="{_number(x)}" y1="{y}" x2="{_number(x)}" y2="{foot}" stroke="{colour}" stroke-width="1.5">'
           f"<title>{_text(says)}</title></line>")
    yield (f'<text x="{_number(x - 60 if left else x + 60)}" y="{y + 14}" font-size="11" font-weight="bold" fill="{colour}" '
           f'text-anchor="{"end" if left else "start"}" stroke="#ffffff" stroke-width="3" paint-order="stroke">'
           f"{escape(shown)}<title>{_text(says)}</title></text>")


def _ticks(lane: Lane, y: int, scale: _Scale) -> Iterable[str]:
    """One stroke a pixel at most: a burst is one stroke whose title counts it."""
    counts: dict[int, int] = {}
    for at_ms in lane.ticks:
        pixel = scale.tenths(at_ms) // 10
        counts[pixel] = counts.get(pixel, 0) + 1
    for pixel, count in sorted(counts.items()):
        yield (f'<rect x="{pixel}" y="{y + 2}" width="1.6" height="{BAND - 4}" fill="{lane.colour}">'
               f"<title>{count} {_text(lane.name, LABEL_MAX)}</title></rect>")
