"""A node's simulated disk: what is durable when, and what a crash leaves behind.

A record is *written* once the system has it (a crash of the process cannot take it away) and *durable* once a
sync that began after it was written has ended. Syncs are grouped: one at a time a log, each for all that was
written when it began. A log with a writer process (the node's NODE_WRITER_LOGS) behaves as that process does: while
it is stalled its records wait in a pipe and die with the node; a record that is refused is tried again in order.

Faults of one disk: stall, slow, refuse, read_only, torn, unsynced (`harness.drill.model.Disk`). Fairness: a torn tail
never holds a byte of a durable record, and losing unsynced data never touches a durable one; no system could
survive otherwise, and disks that lie are not drilled.

It has a size, and gives room by the page, so that a full disk still takes what fits into the last page of a log. What
is in use at rest stays as it was drawn; while something fills the disk, all that the node writes counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random

from harness.recording.tape import How
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.room import Room, pages
from harness.world.sim.shelf import Shelf
from harness.world.sim.volume import Files, Volume
from system_under_test.machine import (
    Append,
    Done,
    Durable,
    Failed,
    LogImage,
    Look,
    Replace,
    Seen,
    Value,
)

SYNC_US = (300, 2_000)
"""A sync takes this long, drawn for each: a solid-state disk that is not alone (measured p50 0.2 ms, p99 2 ms)."""

RETRY_US = 50 * MS
"""A refused record is tried again after this pause, as the shell's writer does."""

USED_RATIO = (0.30, 0.60)
"""Share of the disk in use, drawn once a node: far from every watermark."""

STEP_US = 50
"""A step of a plan that waits for no sync takes this long: writing a small file into the page cache, renaming it."""

MIB = 1_048_576
_LOOK_US = 100
_FRAME_BYTES = 10
"""What a record takes beside its payload: a checksum, a blank and the end of the line."""


class Log:
    """One log: records written, how many of them are durable, and those not written yet."""

    __slots__ = ("name", "records", "unsynced", "last_bytes", "durable", "durable_bytes", "written_bytes", "torn_bytes",
                 "piped", "waiting", "syncing", "retrying", "refused_seq")

    def __init__(self, name: str, piped: bool) -> None:
        self.name = name
        self.piped = piped
        self.records = Shelf()
        self.unsynced: deque[tuple[int, int]] = deque()
        """seq and length of each record that is written and not durable, oldest first"""
        self.last_bytes = 0
        self.durable = 0
        self.durable_bytes = 0
        self.written_bytes = 0
        self.torn_bytes = 0
        self.waiting: deque[Append] = deque()
        self.syncing = False
        self.retrying = False
        self.refused_seq: int | None = None


class Replacing:
    """A plan that is being carried out: how many of its steps are taken, and what stood before its rename."""

    __slots__ = ("value", "taken", "before", "over")

    def __init__(self, value: Replace) -> None:
        self.value, self.taken, self.over = value, 0, False
        self.before: bytes | None = None

    @property
    def step(self) -> str:
        """The step that comes next."""
        return self.value.plan[self.taken]


class Disk(Room):
    """All that one node keeps. It outlives the node's processes; ``life`` tells whose operation an event ends."""

    def __init__(self, agenda: Agenda, dice: Random, piped: tuple[str, ...], give: Callable[[Value], None],
                 remark: Callable[[str, Mapping[str, object]], None], size_bytes: int = 64 * MIB,
                 volumes: Sequence[Volume] = ()) -> None:
        super().__init__(size_bytes, int((USED_RATIO[0] + (USED_RATIO[1] - USED_RATIO[0]) * dice.random()) * size_bytes))
        self._agenda, self._dice, self._piped, self._give, self._remark = agenda, dice, piped, give, remark
        self.logs: dict[str, Log] = {name: Log(name, True) for name in piped}
        self.files, self._volumes = Files(), tuple(volumes)
        self.boots = 0
        self.life = 0
        self.faults: dict[str, tuple[str, int | None]] = {}
        self.refusals = 0
        self.lost_bytes = 0
        self.sync_us = 0
        self._replacing: deque[Replacing] = deque()
        self._free_at_us = 0
        self.dies_before: Callable[[Replace, str], bool] = lambda value, step: False
        """whether the process dies before that step; it is dead then"""

    # ---- operations of the machine

    def append(self, value: Append) -> None:
        log = self.logs.get(value.log)
        if log is None:
            log = self.logs[value.log] = Log(value.log, False)
        if log.piped and (log.waiting or self._held(log, value)):
            log.waiting.append(value)
            self._retry_soon(log)
            return
        why = self._refusal(log, value)
        if why is not None:
            self.refusals += 1
            self._give(Failed(value, why))
            return
        self._write(log, value)
        self._sync(log)

    def replace(self, value: Replace) -> None:
        """Carry out the plan, one operation at a time: what waits for a sync takes as long, anything else next to nothing."""
        doing, steps = Replacing(value), len(value.plan)
        synced = any(step.startswith("sync") for step in value.plan)
        began_us = max(self._agenda.now_us, self._free_at_us)
        took_us = self._draw_us() if synced else STEP_US * steps
        self._free_at_us = began_us + took_us
        self._replacing.append(doing)
        for n in range(1, steps + 1):
            self._agenda.at(began_us + took_us * n // steps, self._take_step, (self.life, doing))

    def read(self, file: str) -> bytes | None:
        """What stands in a small file; None where there is none."""
        return self.home_of(file).get(file)

    def put(self, file: str, data: bytes | None, how: How) -> None:
        """Every change of a small file: replaced, in_place or removed (no data)."""
        self.home_of(file).put(file, data, how)

    def home_of(self, file: str) -> Files:
        """The files among which one of that name lies: the node's own, or those of a volume."""
        volume = self._volume_of(file)
        return self.files if volume is None else volume.files

    def _volume_of(self, file: str) -> Volume | None:
        for each in self._volumes:
            if each.holds(file):
                return each
        return None

    def small_files(self) -> dict[str, bytes]:
        """All that a start finds, by name."""
        found = dict(self.files)
        for volume in self._volumes:
            found |= volume.files
        return dict(sorted(found.items()))

    def look(self, value: Look) -> None:
        self._agenda.at(self._agenda.now_us + _LOOK_US, self._seen, (self.life, value.source))

    def image(self) -> dict[str, LogImage]:
        """What a start finds: the valid prefix of each log; its torn tail is cut off by the first append."""
        return {name: LogImage(log.records.records(), log.torn_bytes) for name, log in sorted(self.logs.items())}

    # ---- faults

    def inject(self, id: str, kind: str, amount: int | None) -> None:
        self.faults[id] = (kind, amount)

    def heal(self, id: str) -> None:
        """What was held goes on: stalled syncs end, refused records are tried again."""
        self.faults.pop(id, None)
        super().heal(id)
        for log in self.logs.values():
            self._drain(log)
            self._sync(log)

    def crash(self) -> None:
        """The process is gone. Operations under way end where they are; what the pipe held is gone with it."""
        self._settle_replaces()
        for log in self.logs.values():
            torn = self._torn_tail(log)
            if self._has("unsynced"):
                keep = log.durable + self._dice.randrange(len(log.records) - log.durable + 1)
                self._lose_from(log, keep)
            log.torn_bytes = torn or log.torn_bytes
            self.lost_bytes += torn
        self._end_life()

    def close(self) -> None:
        """An orderly end: what can be written is written and synced before the process goes."""
        for log in self.logs.values():
            self._drain(log)
        for doing in self._replacing:
            self.put(doing.value.file, doing.value.data, "replaced" if "rename" in doing.value.plan else "in_place")
        self._end_life()

    def _end_life(self) -> None:
        self.life += 1
        self._replacing.clear()
        self._free_at_us = self._agenda.now_us
        for log in self.logs.values():
            log.waiting.clear()
            log.syncing = log.retrying = False
            log.refused_seq = None
            log.durable, log.durable_bytes = len(log.records), log.written_bytes
            log.unsynced.clear()

    def refuses_file(self, size: int) -> str | None:
        return "EROFS" if self._has("read_only") else super().refuses_file(size)

    def _taken(self) -> int:
        """The room that the node's own logs and files take."""
        return sum(pages(log.written_bytes) for log in self.logs.values()) + sum(
            pages(len(data)) for data in self.files.values())

    @property
    def durable_bytes(self) -> int:
        """Bytes of durable records in the logs that faults act on."""
        return sum(log.durable_bytes for log in self.logs.values() if log.piped or not self._piped)

    @property
    def waiting(self) -> int:
        """Records handed over and not durable yet, in the logs that faults act on."""
        return sum(len(log.waiting) + len(log.records) - log.durable for log in self.logs.values()
                   if log.piped or not self._piped)

    # ---- inside

    def _has(self, kind: str) -> bool:
        return bool(self.faults) and any(each == kind for each, _ in self.faults.values())

    def _affected(self, log: Log) -> bool:
        """A node with a writer process is troubled there; one without, everywhere (as in the local world)."""
        return log.piped or not self._piped

    def _held(self, log: Log, head: Append) -> bool:
        return self._affected(log) and (self._has("stall") or self._refusal(log, head) is not None)

    def _refusal(self, log: Log, value: Append) -> str | None:
        """Why this record cannot be written behind the ones that are."""
        if self._fillers and self.lacks(pages(log.written_bytes + len(value.data) + _FRAME_BYTES) - pages(log.written_bytes)):
            return "ENOSPC"
        if not self.faults:
            return None
        if self._has("read_only"):
            return "EROFS"
        return "EFBIG" if self._affected(log) and self._has("refuse") else None

    def _write(self, log: Log, value: Append) -> None:
        log.torn_bytes = 0
        log.records.append(value.data)
        log.last_bytes = len(value.data)
        log.unsynced.append((value.seq, log.last_bytes))
        log.written_bytes += log.last_bytes + _FRAME_BYTES

    def _sync(self, log: Log) -> None:
        if log.syncing or log.durable == len(log.records) or (self._affected(log) and self._has("stall")):
            return
        log.syncing = True
        self.sync_us = self._draw_us()
        self._agenda.at(self._agenda.now_us + self.sync_us, self._synced,
                        (self.life, log, len(log.records), log.written_bytes))

    def _synced(self, done: tuple[int, Log, int, int]) -> None:
        life, log, count, written = done
        if life != self.life:
            return
        log.syncing = False
        if self._affected(log) and self._has("stall"):
            return
        if count > log.durable:
            for _ in range(count - log.durable):
                seq, _ = log.unsynced.popleft()
            log.durable, log.durable_bytes = count, written
            self._give(Durable(log.name, seq))
        self._sync(log)

    def _draw_us(self) -> int:
        drawn = SYNC_US[0] + int((SYNC_US[1] - SYNC_US[0]) * self._dice.random())
        for kind, amount in self.faults.values():
            if kind == "slow" and amount is not None:
                drawn = max(drawn, amount * MS)
        return drawn

    def _retry_soon(self, log: Log) -> None:
        if log.retrying or self._refusal(log, log.waiting[0]) is None:
            return
        log.retrying = True
        self._agenda.at(self._agenda.now_us, self._retry, (self.life, log))

    def _retry(self, about: tuple[int, Log]) -> None:
        """The head of the line is refused again, or everything goes through."""
        life, log = about
        if life != self.life:
            return
        log.retrying = False
        self._drain(log)
        head = log.waiting[0] if log.waiting else None
        why = self._refusal(log, head) if head is not None and not self._has("stall") else None
        if head is None or why is None:
            return
        self.refusals += 1
        if head.seq != log.refused_seq:
            log.refused_seq = head.seq
            self._remark("shell.append_refused", {"log": log.name, "record": head.seq, "why": why})
            self._give(Failed(head, why))
        log.retrying = True
        self._agenda.at(self._agenda.now_us + RETRY_US, self._retry, (self.life, log))

    def _drain(self, log: Log) -> None:
        """Write what waited, in order, up to what is still held."""
        while log.waiting and not self._held(log, log.waiting[0]):
            self._write(log, log.waiting.popleft())
        self._sync(log)

    def _take_step(self, about: tuple[int, Replacing]) -> None:
        life, doing = about
        if life != self.life or doing.over:
            return
        value, step = doing.value, doing.step
        if self.dies_before(value, step):
            return
        why = self._refuses_step(value, step)
        if why is None:
            self._change(doing, value, step)
            doing.taken += 1
        doing.over = why is not None or doing.taken == len(value.plan)
        if doing.over:
            self._replacing.remove(doing)
            self._give(Done(value.file) if why is None else Failed(value, why))

    def _refuses_step(self, value: Replace, step: str) -> str | None:
        if step.startswith("write"):
            volume = self._volume_of(value.file)
            full = self.refuses_file if volume is None or self._has("read_only") else volume.refuses_file
            why = full(len(value.data)) or ("EFBIG" if not self._piped and self._has("refuse") else None)
        else:
            why = "EROFS" if self._has("read_only") else None
        self.refusals += why is not None
        return why

    def _change(self, doing: Replacing, value: Replace, step: str) -> None:
        """What of a step shows: a rename does, and whatever is done to the file where it stands."""
        if step == "rename":
            files = self.home_of(value.file)
            doing.before = files.get(value.file)
            files.put(value.file, value.data, "replaced")
        elif step == "truncate":
            self.put(value.file, b"", "in_place")
        elif step in ("write_half", "write"):
            data = value.data if step == "write" else value.data[:len(value.data) // 2]
            stood = self.read(value.file) or b""
            self.put(value.file, data + stood[len(data):], "in_place")

    def _settle_replaces(self) -> None:
        """A crash between two steps of a plan. A rename that was not synced yet may go with the machine."""
        for doing in self._replacing:
            if "rename" in doing.value.plan[:doing.taken] and self._has("unsynced") and self._dice.random() < 0.5:
                self.put(doing.value.file, doing.before, "replaced")

    def _torn_tail(self, log: Log) -> int:
        """Under ``torn``: how many bytes of a record the crash leaves, half written, behind the valid prefix."""
        if not self._has("torn") or not self._affected(log) or not log.records.count:
            return 0
        whole = log.last_bytes + 10
        if log.durable < len(log.records):
            self._lose_from(log, len(log.records) - 1)
        return 1 + self._dice.randrange(whole - 1)

    def _lose_from(self, log: Log, keep: int) -> None:
        """What a crash takes was not durable."""
        count = len(log.records) - keep
        sizes = [log.unsynced.pop()[1] for _ in range(count)]
        lost = sum(sizes) + 10 * count
        log.written_bytes -= lost
        self.lost_bytes += lost
        log.records.cut(count, sum(sizes) + count)

    def _seen(self, about: tuple[int, str]) -> None:
        life, source = about
        if life != self.life:
            return
        if source in ("disk_primary", "disk_secondary"):
            self._give(Seen(source, b"%.6f" % (self.used_ratio if source == "disk_primary" else self.files_ratio)))
        elif (data := self.read(source)) is not None:
            self._give(Seen(source, data))
        else:
            self._give(Seen(source, None, "FileNotFoundError"))
