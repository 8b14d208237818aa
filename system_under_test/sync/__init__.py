"""The sync process: mirrors what the trader says of its net asset value into a file of its own, for dashboards."""

from system_under_test.sync.mirror import Mirror, Nav, Source
from system_under_test.sync.sync import Sync, make

__all__ = ["Mirror", "Nav", "Source", "Sync", "make"]
