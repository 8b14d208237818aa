"""A small Deribit, API v2: what the trader and an ordinary client library use. See specs/exchange/README.md."""

from system_under_test.exchange.exchange import make, prepare

__all__ = ["make", "prepare"]
