"""An engine and the two images of this checkout, built once; where no engine answers, a test says so and is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UsageError
from harness.world.real import images


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the container engine."""
    try:
        client = images.connect(5)
        images.recipes()
    except UsageError as why:
        pytest.skip(str(why))
    if images.base_at_hand(client) is None:
        pytest.skip(f"the engine has no base image; this line makes one: {images.ENGINE_REMEDY}")
    return client


@pytest.fixture(scope="session")
def built(engine: Any) -> images.Images:
    """The images of this checkout, built where they are missing."""
    return images.build(engine, print)
