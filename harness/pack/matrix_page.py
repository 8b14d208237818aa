"""The matrix of sabotages as people read it: a page, and a picture of sabotage × drill without script or link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from markupsafe import Markup, escape

from harness.pack.matrix import Matrix
from harness.pack.pages import page
from harness.pack.plain import visible

NAMED, ALSO, SEES_NOT, UNKNOWN = "#2f7d54", "#a9cfb9", "#eceff2", "#e0a526"
SLIPPED, INK, FAINT = "#b42318", "#1f2933", "#7b8794"
LEFT, TOP, CELL, STEP, ROW = 250, 30, 34, 38, 17
MEANING = {NAMED: "caught, by the check that the catalogue names", ALSO: "caught as well", SEES_NOT: "not noticed",
           UNKNOWN: "nothing to be said", SLIPPED: "SLIPPED THROUGH"}


def matrix_files(matrix: Matrix | None) -> dict[str, bytes]:
    """The files that a pack derives from its matrix; none without one."""
    if matrix is None:
        return {}
    return {"sensitivity/matrix.md": page("matrix.md.j2", matrix=matrix, mark=mark, numbers=column_names(matrix)),
            "sensitivity/matrix.svg": f"{matrix_svg(matrix)}\n".encode()}


def cell_of(row: Mapping[str, Any], drill: str) -> Mapping[str, Any] | None:
    """A sabotage's run of a drill, where there was one."""
    return next((each for each in row["runs"] if each["drill"] == drill), None)


def mark(row: Mapping[str, Any], drill: str) -> str:
    """One sign for a run: ``#`` caught by name · ``x`` caught as well · ``.`` not noticed · ``?`` unknown · ``!`` slipped."""
    cell, named = cell_of(row, drill), row["named"]["drill"] == drill
    if cell is None:
        return " "
    if named:
        return "#" if row["caught"] else "!"
    return {"FAIL": "x", "PASS": "."}.get(cell["verdict"], "?")


_COLOURS = {"#": NAMED, "x": ALSO, ".": SEES_NOT, "?": UNKNOWN, "!": SLIPPED}


def column_names(matrix: Matrix) -> Mapping[str, str]:
    """What stands above a drill's column: its number, or the beginning of its name."""
    return {drill: number if (number := drill.partition("_")[0]).isdigit() else drill[:4] for drill in matrix.drills}


def matrix_svg(matrix: Matrix) -> str:
    """The whole picture as an ``<svg>`` element: a row a sabotage, a column a drill."""
    drills, rows = matrix.drills, matrix.rows
    width, height = LEFT + len(drills) * STEP + 10, TOP + len(rows) * ROW + 34
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
             'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif" '
             f"aria-label={quoteattr(visible(matrix.says))}>",
             f"<title>{escape(visible(matrix.says))}</title>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for column, (drill, number) in enumerate(column_names(matrix).items()):
        parts.append(f'<text x="{LEFT + column * STEP + CELL // 2}" y="{TOP - 10}" font-size="11" fill="{INK}" '
                     f'text-anchor="middle">{escape(visible(number))}<title>{escape(visible(drill))}</title></text>')
    for line, row in enumerate(rows):
        parts += _row(row, drills, TOP + line * ROW)
    x = LEFT
    for colour, word in MEANING.items():
        if colour == SLIPPED and not matrix.slipped:
            continue
        parts.append(f'<rect x="{x}" y="{height - 24}" width="10" height="10" fill="{colour}"/>'
                     f'<text x="{x + 14}" y="{height - 15}" font-size="10" fill="{FAINT}">{word}</text>')
        x += 30 + 5 * len(word)
    return "\n".join((*parts, "</svg>"))


def _row(row: Mapping[str, Any], drills: list[str], y: int) -> list[str]:
    name = visible(row["name"], 34)
    parts = [f'<text x="{LEFT - 8}" y="{y + 11}" font-size="11" fill="{INK if row["caught"] else SLIPPED}" '
             f'text-anchor="end">{escape(name)}<title>{escape(visible(row["sentence"]))}</title></text>']
    for column, drill in enumerate(drills):
        sign, cell = mark(row, drill), cell_of(row, drill)
        if cell is None:
            continue
        told = visible(f"{row['name']} · {drill}: {cell['verdict']} {', '.join((*cell['premises'], *cell['checks']))}", 300)
        parts.append(f'<rect x="{LEFT + column * STEP}" y="{y}" width="{CELL}" height="{ROW - 3}" rx="2" '
                     f'fill="{_COLOURS[sign]}"><title>{escape(told)}</title></rect>')
    return parts


def picture(matrix: Matrix) -> Markup:
    """The picture, ready for a page."""
    return Markup(matrix_svg(matrix))  # noqa: S704 (made above, every value escaped)
