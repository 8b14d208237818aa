"""The intelligence node: scores, relative-value momentum and factors, from public prices and what the trader's files say."""

import importlib

from system_under_test.intelligence.intelligence import Intelligence, make

__all__ = ["Intelligence", "make", "prepare"]


def prepare() -> None:
    """Load the numerical library ahead, where many runs share what was loaded once."""
    importlib.import_module("system_under_test.intelligence.documents")
