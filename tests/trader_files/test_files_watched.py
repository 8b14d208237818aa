"""Every drill of phase 2 watches all three contracts: whatever surface stands under one is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SURFACES = yaml.safe_load((ROOT / "system_under_test" / "stack.yaml").read_text())["surfaces"]
PROMISED = {name for name, each in SURFACES.items() if each["contract"] is not None}


@pytest.mark.parametrize("file", sorted((ROOT / "drills" / "phase2").glob("*.yaml")), ids=lambda file: file.stem)
def test_all_three_contracts_are_watched(file: Path) -> None:
    """A surface that is added to the stack is added here."""
    assert set(yaml.safe_load(file.read_text())["sample"]) >= PROMISED
    assert {SURFACES[name]["contract"].partition(".")[0] for name in PROMISED} == {"csp_status", "ops_status", "state_files"}
