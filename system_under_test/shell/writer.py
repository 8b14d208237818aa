"""The writer of one log as a process of its own, so that a stalled disk never stalls the machine's loop.

    python -m system_under_test.shell.writer LOG_FILE PARENT_PID

It dies with its parent (PDEATHSIG) and holds the lock of the log: a writer that was stopped and resumes after a
crash can never append behind the back of the next life. One batch is written and synced at a time, then
acknowledged. A write that is refused (file-size limit, no space, an error of the device) is tried again at the
head of the line until it succeeds, with the torn tail cut off each time, so that order is kept.

In: records of ``<seq: 8 bytes><length: 4 bytes><payload>``, big-endian. Out: lines of text:

    ready <torn bytes>      the lock is held, the log may be read
    refused <seq> <why>     the record at the head of the line cannot be written; twice a second while that lasts
    durable <seq>           everything up to seq is synced
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from system_under_test.shell.files import FileError, LogFile, frame_record

HEADER = struct.Struct(">QI")

RETRY_S = 0.05
"""Pause before a refused write is tried again."""

SAY_EVERY_S = 0.5
"""A refusal that goes on is told again this often."""

_READ_BYTES = 65_536
_PR_SET_PDEATHSIG = 1


def main() -> int:
    path, parent = Path(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent, which closes our input
    try:
        log = LogFile(path)
    except (OSError, FileError) as why:
        print(f"writer: {why}", file=sys.stderr)
        return 74
    _say(f"ready {log.decoded.torn_bytes}")
    for batch in _batches():
        _write(log, batch)
    return 0


def _die_with(parent: int) -> None:
    """Be killed when the parent dies; and die now if it already has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(0)


def _batches() -> Iterator[list[tuple[int, bytes]]]:
    """Whatever has arrived since the last batch, as (seq, payload), until the input ends."""
    buffer = b""
    while chunk := os.read(0, _READ_BYTES):
        buffer += chunk
        batch, at = [], 0
        while len(buffer) - at >= HEADER.size:
            seq, length = HEADER.unpack_from(buffer, at)
            if len(buffer) - at - HEADER.size < length:
                break
            at += HEADER.size + length
            batch.append((seq, buffer[at - length:at]))
        buffer = buffer[at:]
        if batch:
            yield batch


def _write(log: LogFile, batch: list[tuple[int, bytes]]) -> None:
    """Write and sync the batch; when it is refused, record by record with the first of them tried for ever. What has gone
    through is told before another one is refused: a full disk may still take a short record."""
    if _tried(log, b"".join(frame_record(payload) for _, payload in batch)) is None:
        _say(f"durable {batch[-1][0]}")
        return
    for seq, payload in batch:
        said_at = -SAY_EVERY_S
        while (why := _tried(log, frame_record(payload))) is not None:
            if time.monotonic() - said_at >= SAY_EVERY_S:
                _say(f"refused {seq} {why}")
                said_at = time.monotonic()
            time.sleep(RETRY_S)
        _say(f"durable {seq}")


def _tried(log: LogFile, data: bytes) -> str | None:
    """Append and sync; None, or why not."""
    try:
        log.append_synced(data)
    except OSError as why:
        return errno.errorcode.get(why.errno or 0, str(why.errno))
    return None


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
