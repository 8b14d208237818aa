"""The reference trader, to contract 5.2: sans-IO, a small reducer over its organs.

`make` is what ``stack.yaml`` names. The strategy wishes, the gates and the guard decide, the ledger remembers, the
one door sends, the floor contains, the reconciliation compares, the watch reports.
"""

from system_under_test.trader.trader import Trader, make

__all__ = ["Trader", "make"]
