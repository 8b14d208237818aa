"""The gate is tested on the packing rooms' packs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pack"))

from pack_kit import _judged_by_fake, make_run, pack, pristine_root, root  # noqa: E402, F401 (fixtures)
