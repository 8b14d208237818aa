"""These tests drive the trader on the bench of tests/trader."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trader"))
