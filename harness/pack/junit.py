"""Test results for machines: JUnit XML, and the same as plain text.

FAIL is a failure and INCONCLUSIVE an error; neither may look green to a CI server. A run that did not complete
is an error of its own, also when every check that could be made passed; so is a drill that is not in the pack, and one whose
PASS proves nothing: another text ran, it passes without its force, too, or it did not pass later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from harness.pack.chapter import BELIED, Chapter
from harness.pack.plain import visible

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(chapters: Sequence[Chapter], absent: Mapping[str, str]) -> bytes:
    """One test suite a drill, one test case a check; ``absent``: drills that are not here → why."""
    root = ElementTree.Element("testsuites", name="drillproof")
    for chapter in chapters:
        root.append(_suite(chapter))
    root.extend(_lost(drill, why) for drill, why in absent.items())
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root) + b"\n"


def _suite(chapter: Chapter) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_clean(chapter.name))
    suite.set("timestamp", _clean(str(chapter.story.versions.get("started_utc", ""))))
    suite.set("time", f"{chapter.story.end_ms / 1000:.3f}")
    for group, check in chapter.checks:
        _case(suite, chapter.name, f"{group}: {check['id']}", check["verdict"], check["says"])
    if chapter.says in BELIED:
        _case(suite, chapter.name, chapter.says, "INCONCLUSIVE", str(chapter.belied))
    else:
        run = "PASS" if chapter.says == chapter.verdict["verdict"] else "INCONCLUSIVE"
        _case(suite, chapter.name, "run", run, f"the run ended as {chapter.says}")
    return _counted(suite)


def _lost(drill: str, why: str) -> ElementTree.Element:
    """The suite of a drill that is not in the pack."""
    suite = ElementTree.Element("testsuite", name=_clean(drill))
    _case(suite, drill, "run", "INCONCLUSIVE", why)
    return _counted(suite)


def _counted(suite: ElementTree.Element) -> ElementTree.Element:
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    return suite


def _case(suite: ElementTree.Element, drill: str, name: str, verdict: str, says: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_clean(drill), name=_clean(name))
    if verdict != "PASS":
        kind = "failure" if verdict == "FAIL" else "error"
        ElementTree.SubElement(case, kind, message=_clean(f"{verdict}: {says}"))


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", visible(text))


def plain_results(chapters: Sequence[Chapter], absent: Mapping[str, str]) -> bytes:
    """The same for eyes and grep: one line a check."""
    lines = []
    for chapter in chapters:
        lines.append(f"{chapter.says:12} {chapter.name} (safe after: {chapter.safe_after})")
        lines += [f"    {check['verdict']:12} {group:9} {check['id']}: {check['says']}{chapter.when(check)}"
                  for group, check in chapter.checks]
    lines += [f"{'INCONCLUSIVE':12} {drill}: {why}" for drill, why in absent.items()]
    return ("\n".join(map(visible, lines)) + "\n").encode()
