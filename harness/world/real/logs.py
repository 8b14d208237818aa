"""The logs of a run's processes, kept short and free of the run's secrets while the processes write on.

Everybody appends, so a log that is cut back goes on at its new end, and a secret is overwritten where it stands by as
many stars.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import limits
from harness.world.secrets import Secrets


class Logs:
    """``node-logs/`` of a run."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        self._folder, self._secrets = folder, secrets
        self._seen: dict[str, int] = {}

    def keep(self) -> bool:
        """Blot what was written since the last time, then cut back what has grown too long; whether anything had."""
        cut = False
        for log in sorted(self._folder.iterdir()):
            if not log.is_symlink() and log.is_file():
                self._blot(log)
                cut |= self._cut(log)
        return cut

    def _blot(self, log: Path) -> None:
        """Read from where the last reading ended, less the longest secret: its other half may have come since."""
        begin = max(0, self._seen.get(log.name, 0) - self._secrets.longest)
        with log.open("r+b") as file:
            file.seek(begin)
            # A log that is about to be cut back is read a secret further than it will be long.
            data = file.read(max(0, limits.LOG_BYTES_MAX + self._secrets.longest - begin))
            self._seen[log.name] = begin + len(data)
            if self._secrets.stands_in(data):
                os.pwrite(file.fileno(), self._secrets.starred(data, f"{self._folder.name}/{log.name}"), begin)

    def _cut(self, log: Path) -> bool:
        if log.stat().st_size <= limits.LOG_BYTES_MAX:
            return False
        os.truncate(log, limits.LOG_BYTES_MAX)
        self._seen[log.name] = limits.LOG_BYTES_MAX
        return True
