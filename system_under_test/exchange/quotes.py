"""What the exchange publishes about an instrument: book views, ticker, order book, summary, trades."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from system_under_test.exchange import dice
from system_under_test.exchange.instruments import Instrument
from system_under_test.exchange.market import Mark
from system_under_test.exchange.matching import PUBLIC_TRADES_MAX, Engine


class Quotes:
    """Documents made from the engine's state, cached for as long as nothing moved."""

    def __init__(self, engine: Engine, seed: int, wall: Callable[[], int]) -> None:
        self._engine, self._seed, self._wall = engine, seed, wall
        self.crossed: Callable[[Instrument], bool] = lambda instrument: False
        """whether a switch shows this book crossed"""
        self.state_of: Callable[[Instrument], str] = lambda instrument: "open"
        self.change_ids: dict[str, int] = {}
        self._views: dict[str, tuple[Mapping[int, int], Mapping[int, int]]] = {}
        self._tickers: dict[str, tuple[object, dict[str, Any]]] = {}
        self._interest: dict[str, int] = {}
        self._last_extremes: dict[str, tuple[int, tuple[float | None, float | None]]] = {}
        self._last_stats: dict[str, tuple[int, dict[str, Any]]] = {}

    def view(self, instrument: Instrument) -> tuple[Mapping[int, int], Mapping[int, int]]:
        """Both sides as published now, best first. Gives the book a new change id when it looks different."""
        name, book = instrument.name, self._engine.book(instrument)
        bids = book.levels(True) if book.buys else book.bids
        asks = book.levels(False) if book.sells else book.asks
        if self.crossed(instrument) and bids and asks:
            best = next(iter(asks))
            bids = {instrument.above(instrument.above(best)): next(iter(bids.values())), **bids}
        last = self._views.get(name)
        if last is None:
            self.change_ids[name] = 10_000_000 + dice.salt(self._seed, f"change:{name}") % 90_000_000
        elif (last[0] is bids or last[0] == bids) and (last[1] is asks or last[1] == asks):
            return last
        else:
            self.change_ids[name] += 1
        self._views[name] = view = bids, asks
        return view

    def change_id(self, instrument: Instrument) -> int:
        self.view(instrument)
        return self.change_ids[instrument.name]

    def side(self, instrument: Instrument, levels: Mapping[int, int], depth: int) -> list[list[float]]:
        return [[instrument.price(ticks), instrument.amount(lots)] for ticks, lots in islice(levels.items(), depth)]

    def ticker(self, instrument: Instrument) -> dict[str, Any]:
        """``public/ticker``, made again only when something moved."""
        bids, asks = self.view(instrument)
        name, engine, state = instrument.name, self._engine, self.state_of(instrument)
        mark = engine.market.mark(instrument, self._wall())
        seen = (self.change_ids[name], mark, engine.seqs.get(name), state)
        cached = self._tickers.get(name)
        if cached is not None and cached[0] == seen:
            return cached[1]
        document = self._ticker(instrument, bids, asks, mark, state)
        self._tickers[name] = (seen, document)
        return document

    def _ticker(self, instrument: Instrument, bids: Mapping[int, int], asks: Mapping[int, int], mark: Mark,
                state: str) -> dict[str, Any]:
        wall_ms, (tick, ticks_of), (lot, lots_of) = self._wall(), instrument.tick, instrument.lot
        bid, ask = next(iter(bids), 0), next(iter(asks), 0)
        low, high = self._engine.market.band(instrument, mark)
        document: dict[str, Any] = {
            "instrument_name": instrument.name,
            "timestamp": wall_ms,
            "state": state,
            "best_bid_price": bid * tick / ticks_of,
            "best_bid_amount": bids.get(bid, 0) * lot / lots_of,
            "best_ask_price": ask * tick / ticks_of,
            "best_ask_amount": asks.get(ask, 0) * lot / lots_of,
            "index_price": mark.index,
            "mark_price": mark.price,
            "min_price": low * tick / ticks_of,
            "max_price": high * tick / ticks_of,
            "last_price": self.last_price(instrument),
            "settlement_price": mark.price,
            "estimated_delivery_price": mark.index,
            "open_interest": self._open_interest(instrument),
            "stats": self._stats(instrument),
        }
        if instrument.option:
            document |= self._option_fields(instrument, mark, document)
        elif instrument.perpetual:
            document |= {"funding_8h": 0.00001, "current_funding": 0.0, "interest_value": 0.0}
        if wall_ms >= instrument.expires_ms:
            document["delivery_price"] = mark.index
        return document

    @staticmethod
    def _option_fields(instrument: Instrument, mark: Mark, document: Mapping[str, Any]) -> dict[str, Any]:
        vega_coins = max(mark.vega / mark.index, 1e-9)

        def iv_of(price: float) -> float:
            iv = mark.iv + (price - mark.price) / vega_coins if price else 0.0
            return round(min(max(iv, 0.0), 999.0), 2)

        return {
            "bid_iv": iv_of(document["best_bid_price"]), "ask_iv": iv_of(document["best_ask_price"]),
            "mark_iv": round(mark.iv, 2), "underlying_price": round(mark.forward, 4),
            "underlying_index": f"SYN.{instrument.name.rsplit('-', 2)[0]}", "interest_rate": 0.0,
            "greeks": {"delta": round(mark.delta, 5), "gamma": round(mark.gamma, 7), "vega": round(mark.vega, 5),
                       "theta": round(mark.theta, 5), "rho": round(mark.rho, 5)},
        }

    def last_price(self, instrument: Instrument) -> float | None:
        last = self._engine.last_ticks.get(instrument.name)
        return None if last is None else instrument.price(last)

    def _open_interest(self, instrument: Instrument) -> float:
        """What others hold, from the seed, and what the account holds."""
        lots = self._interest.get(instrument.name)
        if lots is None:
            share = dice.noise(dice.salt(self._seed, f"interest:{instrument.name}"), 0)
            lots = self._interest[instrument.name] = int((200 if instrument.option else 5_000_000) * (1 + share))
        return instrument.amount(lots + abs(self._engine.account.lots(instrument)))

    def _stats(self, instrument: Instrument) -> dict[str, Any]:
        seq = self._engine.seqs.get(instrument.name, 0)
        cached = self._last_stats.get(instrument.name)
        if cached is None or cached[0] != seq:
            cached = self._last_stats[instrument.name] = (seq, self._new_stats(instrument))
        return cached[1]

    def _new_stats(self, instrument: Instrument) -> dict[str, Any]:
        trades = self._engine.public_trades.get(instrument.name) or ()
        volume = self._engine.volume.get(instrument.name, 0.0)
        mark = self._engine.market.mark(instrument, self._wall())
        usd = instrument.option or instrument.linear
        coins, dollars = (volume, volume * mark.index) if usd else (volume / mark.index, volume)
        high, low = self._extremes(instrument, trades)
        change = round((trades[-1]["price"] / trades[0]["price"] - 1) * 100, 4) if trades else None
        document = {"volume": round(coins, 8), "volume_usd": round(dollars, 2), "high": high, "low": low,
                    "price_change": change}
        if not instrument.option:
            document["volume_notional"] = round(dollars, 2)
        return document

    def _extremes(self, instrument: Instrument, trades: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
        """Highest and lowest price of the trades that are kept. Only the new ones are looked at until the oldest go."""
        seq = self._engine.seqs.get(instrument.name, 0)
        known = self._last_extremes.get(instrument.name)
        if known is None or seq - known[0] > len(trades) or len(trades) == PUBLIC_TRADES_MAX:
            prices = [trade["price"] for trade in trades]
        else:
            fresh = islice(reversed(trades), seq - known[0])
            prices = [*(each for each in known[1] if each is not None), *(trade["price"] for trade in fresh)]
        extremes = max(prices, default=None), min(prices, default=None)
        self._last_extremes[instrument.name] = (seq, extremes)
        return extremes

    def order_book(self, instrument: Instrument, depth: int) -> dict[str, Any]:
        """``public/get_order_book``."""
        bids, asks = self.view(instrument)
        return self.ticker(instrument) | {
            "timestamp": self._wall(), "bids": self.side(instrument, bids, depth),
            "asks": self.side(instrument, asks, depth), "change_id": self.change_ids[instrument.name],
        }

    def quote(self, instrument: Instrument) -> dict[str, Any]:
        ticker = self.ticker(instrument)
        keys = ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount", "instrument_name", "timestamp")
        return {key: ticker[key] for key in keys}

    def summary(self, instrument: Instrument) -> dict[str, Any]:
        """``public/get_book_summary_by_…``."""
        ticker = self.ticker(instrument)
        bid, ask = ticker["best_bid_price"] or None, ticker["best_ask_price"] or None
        stats = ticker["stats"]
        document = {
            "instrument_name": instrument.name, "base_currency": instrument.base,
            "quote_currency": instrument.quote, "creation_timestamp": self._wall(),
            "high": stats["high"], "low": stats["low"], "last": ticker["last_price"],
            "price_change": stats["price_change"], "volume": stats["volume"],
            "volume_usd": stats["volume_usd"], "bid_price": bid, "ask_price": ask,
            "mid_price": (bid + ask) / 2 if bid and ask else None, "mark_price": ticker["mark_price"],
            "open_interest": ticker["open_interest"], "estimated_delivery_price": ticker["estimated_delivery_price"],
        }
        for key in ("underlying_price", "underlying_index", "interest_rate", "mark_iv", "funding_8h", "current_funding"):
            if key in ticker:
                document[key] = ticker[key]
        return document
