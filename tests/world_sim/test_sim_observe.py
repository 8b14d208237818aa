"""How the simulated world reads what nodes tell: to the letter of the real worlds, and never an old word for a new one."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from toy_world import STACK

from harness import limits
from harness.recording.tape import Tape
from harness.world.real.documents import parse
from harness.world.secrets import Secrets
from harness.world.sim.clock import Agenda
from harness.world.sim.observe import FileSampler, document_of
from harness.world.sim.volume import Files

FILE = next(surface for surface in STACK.surfaces.values() if surface.file)


@pytest.mark.parametrize("depth", [1, limits.DOCUMENT_DEPTH_MAX, limits.DOCUMENT_DEPTH_MAX + 1, 100, 254, 300, 1_000, 5_000])
def test_nesting_is_as_deep_as_in_the_real_worlds(depth: int) -> None:
    """One level too many is no document, whoever reads it; none is so deep that the reading itself fails."""
    body = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}" if depth > 1 else b"{}"
    assert (document_of(body) is not None) == (depth <= limits.DOCUMENT_DEPTH_MAX)
    assert document_of(body) == parse(body)


def test_a_wide_document_is_one() -> None:
    """Many brackets are not yet deep ones."""
    wide = {"rows": [[n] for n in range(500)]}
    assert document_of(orjson.dumps(wide)) == wide


def test_what_could_not_be_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails leaves nothing behind that the next look would take for what stands there."""
    files, secrets, seen = Files(), Secrets({}), []
    sampler = FileSampler(Agenda(), Tape(tmp_path), secrets, FILE, files, 500, lambda *saw: seen.append(saw[1]))
    files.put("shared/note.json", b'{"n":1}', "replaced")

    def fails(data: bytes, where: str) -> bytes:
        raise MemoryError("on purpose")

    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(secrets, "starred", fails)
        files.put("shared/note.json", b'{"n":2}', "replaced")
    sampler._slot(None)
    assert seen == [{"n": 1}, {"n": 2}]
