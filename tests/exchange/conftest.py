"""The exchange machine in virtual time: a driver, and a client that is logged in."""

from __future__ import annotations

import pytest
from exchange_driver import Client, Driver


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def make_driver() -> type[Driver]:
    return Driver


@pytest.fixture
def client(driver: Driver) -> Client:
    return driver.connect().login()
