"""Ingest: reads the exchange's public trades, round after round.

Its heartbeat is its rounds: one counts when the source has answered with trades, new or not. When the source falls silent or
answers something else, the worker has nothing to do and its heartbeat grows old, while the door still answers.
"""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.machine import Now, Response, Unanswered, Value
from system_under_test.services.asking import Asker
from system_under_test.services.service import Service
from system_under_test.services.switch import document

LINK = "ingest_source"
TRADES = "/api/v2/public/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&count=5&sorting=desc"


class Ingest(Service):
    """One round a second."""

    kind = "ingest"
    control = "ingest_control"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._source = Asker(LINK, TRADES, headers=(("user-agent", f"ingest/{LINK}"),))
        self._last_seq = 0
        self.trades = 0
        """how many trades have been read"""

    def work(self, now: Now) -> list[Value]:
        return self._source.ask(now)

    def looked(self, now: Now) -> None:
        """The operator's files are no part of the round."""

    def heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        heard = self._source.settle(value)
        if heard is None:
            return []
        why = heard.why
        if heard.body is not None:
            seqs = trade_seqs(heard.body)
            if seqs is None:
                why = "answered something that is no list of trades"
            else:
                self.trades += sum(seq > self._last_seq for seq in seqs)
                self._last_seq = max(seqs, default=self._last_seq)
                self.beat_ms = now.mono_ms
        return self._source.trouble(why)


def trade_seqs(body: bytes) -> list[int] | None:
    """The sequence numbers of the trades in an answer; None when it is no such answer."""
    raw = document(body)
    result = raw.get("result") if raw is not None else None
    trades = result.get("trades") if isinstance(result, dict) else None
    if not isinstance(trades, list):
        return None
    seqs = [trade.get("trade_seq") if isinstance(trade, dict) else None for trade in trades]
    whole = [seq for seq in seqs if isinstance(seq, int) and not isinstance(seq, bool)]
    return whole if len(whole) == len(seqs) else None


def make(environment: Mapping[str, str]) -> Ingest:
    """The ingest service. Raises ValueError where the policy lacks what it needs."""
    return Ingest(environment)
