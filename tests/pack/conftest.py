"""The packing rooms' fixtures."""

from __future__ import annotations

from pack_kit import _judged_by_fake, make_run, pack, pristine_root, root  # noqa: F401 (fixtures)
