"""The goldens and contracts that the tests of this room share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.contracts.csp_status import Contract
from harness.contracts.drift import listing
from harness.contracts.library import FIXTURES, REPOSITORY, manifest_of
from harness.contracts.owner import OwnerRules

GOLDENS = tuple(listing()["fixtures"])


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The minimum contract under the reference policy's defaults."""
    return Contract.load()


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """A fresh copy of a golden by name; ``active`` is a healthy document made from one."""
    def get(name: str) -> dict[str, Any]:
        if name != "active":
            return dict(json.loads((REPOSITORY / FIXTURES / f"{name}.json").read_text()))
        document = {**get("unknown_token_force_kill"), "trading_mode": "Active", "mode_reasons": []}
        return {**document, "owner_view": OwnerRules(manifest_of(), {}).derive(document)}

    return get
