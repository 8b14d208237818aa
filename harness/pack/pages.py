"""The Jinja2 environments: every value is made harmless for the kind of page it goes to, unless the code says no.

Escaping is not left to the templates: in text and Markdown the environment's ``finalize`` treats every value, in
HTML it is the engine's autoescaping. ``Ready`` marks text that was made for that page by our own code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.pack.plain import markdown, visible

TEMPLATES = Path(__file__).resolve().parent.parent.parent / "templates"


class Ready(str):
    """Text of ours that already fits the page."""

    __slots__ = ()


def _finalize(treat: Callable[[object], str]) -> Callable[[object], object]:
    return lambda value: value if isinstance(value, (Ready, Markup)) else treat(value)


@cache
def _environment(kind: str) -> Environment:
    options: dict[str, Any] = {"loader": FileSystemLoader(TEMPLATES), "undefined": StrictUndefined,
                               "trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    if kind == "html":
        return Environment(autoescape=True, finalize=_finalize(visible), **options)
    return Environment(autoescape=False, finalize=_finalize(markdown if kind == "md" else visible), **options)  # noqa: S701


def template(name: str) -> Template:
    """``templates/<name>``, compiled once a process; its last suffix before ``.j2`` says what kind of page it is."""
    return _environment(name.removesuffix(".j2").rpartition(".")[2]).get_template(name)


def page(name: str, /, **values: Any) -> bytes:
    """Render ``templates/<name>``."""
    return template(name).render(**values).encode()
