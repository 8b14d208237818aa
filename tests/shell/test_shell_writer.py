"""The writer of a log as a process: what it says while some records fit and others do not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system_under_test.shell.files import decode_log, frame_record
from system_under_test.shell.writer import HEADER

SHORT, LONG = b'{"n":1}', b'{"n":2,"long":"' + b"x" * 200 + b'"}'


@contextmanager
def writer(log: Path, most: int) -> Iterator[subprocess.Popen[bytes]]:
    """A running writer that may not let its log grow beyond so many bytes."""
    process = subprocess.Popen([sys.executable, "-m", "system_under_test.shell.writer", str(log), str(os.getpid())],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready 0\n"
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, hard))
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_fits_is_told_before_what_does_not(tmp_path: Path) -> None:
    """Of records that come together the first one fits: it is durable, the next one is refused by its own number, whole
    or not at all, and goes through once there is room."""
    log = tmp_path / "ledger.log"
    with writer(log, len(frame_record(SHORT)) + 20) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"".join(HEADER.pack(seq, len(each)) + each for seq, each in ((1, SHORT), (2, LONG))))
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == [b"durable 1\n", b"refused 2 EFBIG\n"]
        assert decode_log(log.read_bytes()).records == (SHORT,)
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        said = [line for line in iter(process.stdout.readline, b"durable 2\n") if not line.startswith(b"refused 2 ")]
        assert said == [] and decode_log(log.read_bytes()).records == (SHORT, LONG)
