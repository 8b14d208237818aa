"""The account: positions, balances, margins, and the exposure that an order would leave.

Positions are whole lots, signed. Exposure is the account's delta in BTC by the exchange's own greeks: futures count
their coins (USD over index where inverse), options amount × delta, ETH by the ratio of the indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from system_under_test.exchange.instruments import Instrument
from system_under_test.exchange.market import Market
from system_under_test.exchange.orders import USER_ID, Order

EPSILON = 1e-9
"""Exposures that differ by less are the same: floats add up in different orders."""
LEVERAGE = 50
CURRENCIES = ("BTC", "ETH", "USDC")


@dataclass(slots=True, eq=False)
class Position:
    instrument: Instrument
    lots: int = 0
    average: float = 0.0
    """average entry price; harmonic for inverse futures, as their profit is in coins"""
    realized: float = 0.0

    def apply(self, lots: int, price: float) -> float:
        """Count a fill of signed ``lots``; returns the realized profit in the settlement currency."""
        closing = min(abs(lots), abs(self.lots)) if self.lots * lots < 0 else 0
        sign = 1 if self.lots > 0 else -1
        profit = self.profit(closing * sign, price) if closing else 0.0
        opening = abs(lots) - closing
        after = self.lots + lots
        if opening:
            kept = abs(after) - opening
            self.average = self._blend(kept, opening, price)
        self.lots = after
        if not after:
            self.average = 0.0
        self.realized += profit
        return profit

    def _blend(self, kept: int, opening: int, price: float) -> float:
        if not kept:
            return price
        if self.inverse_future:
            return (kept + opening) / (kept / self.average + opening / price)
        return (kept * self.average + opening * price) / (kept + opening)

    def profit(self, lots: int, price: float) -> float:
        """What closing this many signed lots at ``price`` would earn."""
        if not lots or not self.average or not price:
            return 0.0
        amount = self.instrument.amount(lots)
        if self.inverse_future:
            return amount * (1.0 / self.average - 1.0 / price)
        return amount * (price - self.average)

    @property
    def inverse_future(self) -> bool:
        return not self.instrument.option and not self.instrument.linear


@dataclass(frozen=True, slots=True)
class Exposure:
    """Worst cases before and after an order: |position| in amount of the instrument, |net delta| in BTC."""

    position_before: float
    worst_before: float
    worst_after: float
    net_delta_before: float
    net_delta_after: float
    """worst-case |net delta|, all open orders on the order's side filled"""
    opening: bool

    def row(self) -> dict[str, Any]:
        return {"position_before": self.position_before, "worst_before": self.worst_before, "worst_after": self.worst_after,
                "net_delta_before": round(self.net_delta_before, 8), "net_delta_after": round(self.net_delta_after, 8),
                "opening": self.opening}


class Account:
    """Positions and money of the one account."""

    def __init__(self, market: Market, balances: Mapping[str, float], wall: Callable[[], int]) -> None:
        self._market = market
        self._wall = wall
        self.positions: dict[str, Position] = {}
        self.balances = dict(balances)
        self.session_realized = {currency: {"option": 0.0, "future": 0.0} for currency in CURRENCIES}

    def lots(self, instrument: Instrument) -> int:
        position = self.positions.get(instrument.name)
        return position.lots if position else 0

    def position(self, instrument: Instrument) -> Position:
        return self.positions.setdefault(instrument.name, Position(instrument))

    def fill(self, instrument: Instrument, lots: int, price: float, fee: float) -> float:
        """Count a fill of signed lots; returns the realized profit."""
        profit = self.position(instrument).apply(lots, price)
        money = profit - fee
        if instrument.option:  # the premium changes hands at once, the option then is worth what it is worth
            money = -instrument.amount(lots) * price - fee
        self.balances[instrument.settlement] += money
        self.session_realized[instrument.settlement][instrument.kind] += profit
        return profit

    # ---- exposure

    def unit_delta(self, instrument: Instrument) -> float:
        """BTC delta of one lot bought."""
        mark = self._market.mark(instrument, self._wall())
        coins = instrument.amount(1)
        if not instrument.option and not instrument.linear:
            coins /= mark.index
        delta = coins * mark.delta
        return delta if instrument.base == "BTC" else delta * mark.index / self._market.index("btc_usd")

    def net_delta(self) -> float:
        return sum((p.lots * self.unit_delta(p.instrument) for p in self.positions.values() if p.lots), 0.0)

    def exposure(self, instrument: Instrument, lots: int, resting: Iterable[Order], instead_of: Order | None = None,
                 reduce_only: bool = False) -> Exposure:
        """What an order of signed ``lots`` would leave if it and every open order on its side filled.

        ``instead_of`` is the order that an edit replaces. A reduce-only order cannot raise the position: it is trimmed to it.
        """
        position, unit, net = self.lots(instrument), self.unit_delta(instrument), self.net_delta()
        side_lots, side_delta = 0, 0.0
        for order in resting:
            signed = order.left * order.sign
            if order.reduce_only or not signed:
                continue
            if order.instrument is instrument and (signed > 0) == (lots > 0):
                side_lots += signed
            delta = signed * self.unit_delta(order.instrument)
            if (delta > 0) == (lots * unit > 0):
                side_delta += delta
        replaced = 0 if instead_of is None or instead_of.reduce_only else instead_of.left * instead_of.sign
        after_lots = side_lots - replaced + lots
        after_delta = side_delta - replaced * unit + lots * unit
        if reduce_only:
            after_lots = side_lots
        worst_before, worst_after = _worst_lots(position, side_lots), _worst_lots(position, after_lots)
        delta_before, delta_after = _worst(net, side_delta), _worst(net, after_delta)
        opening = worst_after > worst_before and delta_after > delta_before + EPSILON
        return Exposure(instrument.amount(position), instrument.amount(worst_before), instrument.amount(worst_after),
                        delta_before, delta_after, opening)

    # ---- margin

    def margins(self, instrument: Instrument, lots: int) -> tuple[float, float]:
        """Initial and maintenance margin of a signed position, in its settlement currency (the venue's standard model)."""
        if not lots:
            return 0.0, 0.0
        mark = self._market.mark(instrument, self._wall())
        amount = abs(instrument.amount(lots))
        if instrument.option:
            if lots > 0:
                return 0.0, 0.0
            out = max((instrument.strike - mark.index) if instrument.call else (mark.index - instrument.strike), 0.0)
            initial = max(0.15 - out / mark.index, 0.1) + mark.price
            return initial * amount, (0.075 + mark.price) * amount
        coins = amount * mark.price if instrument.linear else amount / mark.price
        return coins / LEVERAGE, coins / (2 * LEVERAGE)

    def margin_change(self, instrument: Instrument, lots: int) -> float:
        """How much more initial margin (and premium) the account needs when this much is added."""
        held = self.lots(instrument)
        need = self.margins(instrument, held + lots)[0] - self.margins(instrument, held)[0]
        if instrument.option and lots > 0:
            need += instrument.amount(lots) * self._market.mark(instrument, self._wall()).price
        return need

    def available(self, currency: str) -> float:
        summary = self.summary(currency, ())
        return float(summary["available_funds"])

    # ---- documents

    def position_document(self, position: Position, resting: Iterable[Order] = ()) -> dict[str, Any]:
        instrument = position.instrument
        mark = self._market.mark(instrument, self._wall())
        initial, maintenance = self.margins(instrument, position.lots)
        floating = position.profit(position.lots, mark.price)
        open_margin = sum(self.margins(instrument, o.left * o.sign)[0] for o in resting if o.instrument is instrument)
        document: dict[str, Any] = {
            "instrument_name": instrument.name,
            "kind": instrument.kind,
            "direction": "zero" if not position.lots else "buy" if position.lots > 0 else "sell",
            "size": instrument.amount(position.lots),
            "average_price": round(position.average, 6),
            "mark_price": mark.price,
            "index_price": mark.index,
            "settlement_price": mark.price,
            "delta": self._coins(position, mark.delta),
            "initial_margin": round(initial, 9),
            "maintenance_margin": round(maintenance, 9),
            "open_orders_margin": round(open_margin, 9),
            "floating_profit_loss": round(floating, 9),
            "realized_profit_loss": round(position.realized, 9),
            "total_profit_loss": round(floating + position.realized, 9),
            "estimated_liquidation_price": None,
        }
        if instrument.option:
            amount = instrument.amount(position.lots)
            document |= {
                "gamma": round(mark.gamma * amount, 8), "vega": round(mark.vega * amount, 5),
                "theta": round(mark.theta * amount, 5), "average_price_usd": round(position.average * mark.index, 4),
                "floating_profit_loss_usd": round(floating * mark.index, 4),
            }
        else:
            document |= {"size_currency": self._coins(position, 1.0), "leverage": LEVERAGE}
            if instrument.perpetual:
                document |= {"realized_funding": 0.0, "interest_value": 0.0}
        return document

    def _coins(self, position: Position, delta: float) -> float:
        amount = position.instrument.amount(position.lots)
        if position.inverse_future:
            amount /= self._market.mark(position.instrument, self._wall()).index
        return round(amount * delta, 9)

    def summary(self, currency: str, resting: Iterable[Order], limits: Mapping[str, Any] | None = None,
                extended: bool = False) -> dict[str, Any]:
        """``private/get_account_summary``. Raises KeyError for a currency that the account does not hold."""
        balance = self.balances[currency]
        held = [p for p in self.positions.values() if p.instrument.settlement == currency and p.lots]
        totals = {"initial": 0.0, "maintenance": 0.0, "future": 0.0, "option": 0.0, "value": 0.0,
                  "delta": 0.0, "options_delta": 0.0, "gamma": 0.0, "vega": 0.0, "theta": 0.0}
        for position in held:
            self._add(totals, position)
        ordered = sum(max(self.margin_change(o.instrument, o.left * o.sign), 0.0) for o in resting
                      if o.instrument.settlement == currency and not o.reduce_only)
        index = f"{currency.lower()}_usd"
        realized = self.session_realized[currency]
        equity = balance + totals["future"] + totals["value"]
        margin_balance = balance + totals["future"]
        available = margin_balance - totals["initial"] - ordered
        document: dict[str, Any] = {
            "currency": currency,
            "balance": balance,
            "equity": equity,
            "margin_balance": margin_balance,
            "available_funds": available,
            "available_withdrawal_funds": max(min(available, balance), 0.0),
            "spot_reserve": 0.0,
            "additional_reserve": 0.0,
            "fee_balance": 0.0,
            "initial_margin": totals["initial"] + ordered,
            "maintenance_margin": totals["maintenance"],
            "projected_initial_margin": totals["initial"] + ordered,
            "projected_maintenance_margin": totals["maintenance"],
            "total_pl": totals["future"] + totals["option"] + realized["future"] + realized["option"],
            "session_rpl": realized["future"] + realized["option"],
            "session_upl": totals["future"] + totals["option"],
            "delta_total": totals["delta"],
            "projected_delta_total": totals["delta"],
            "delta_total_map": {index: totals["delta"]},
            "estimated_liquidation_ratio": totals["maintenance"] / equity if equity > 0 else 0.0,
            "estimated_liquidation_ratio_map": {index: totals["maintenance"] / equity if equity > 0 else 0.0},
            "options_delta": totals["options_delta"],
            "options_gamma": totals["gamma"],
            "options_theta": totals["theta"],
            "options_vega": totals["vega"],
            "options_pl": totals["option"] + realized["option"],
            "options_session_rpl": realized["option"],
            "options_session_upl": totals["option"],
            "options_value": totals["value"],
            "options_gamma_map": {index: totals["gamma"]},
            "options_theta_map": {index: totals["theta"]},
            "options_vega_map": {index: totals["vega"]},
            "futures_pl": totals["future"] + realized["future"],
            "futures_session_rpl": realized["future"],
            "futures_session_upl": totals["future"],
            "portfolio_margining_enabled": False,
            "cross_collateral_enabled": False,
            "margin_model": "segregated_sm",
            "limits": limits or {},
        }
        document = {key: round(value, 9) if value and isinstance(value, float) else value for key, value in document.items()}
        return {**document, **(IDENTITY if extended else {})}

    def _add(self, totals: dict[str, float], position: Position) -> None:
        instrument = position.instrument
        mark = self._market.mark(instrument, self._wall())
        initial, maintenance = self.margins(instrument, position.lots)
        totals["initial"] += initial
        totals["maintenance"] += maintenance
        totals[instrument.kind] += position.profit(position.lots, mark.price)
        totals["delta"] += self._coins(position, mark.delta)
        if instrument.option:
            amount = instrument.amount(position.lots)
            totals["options_delta"] += amount * mark.delta
            totals["value"] += amount * mark.price
            for greek in ("gamma", "vega", "theta"):
                totals[greek] += amount * getattr(mark, greek)


IDENTITY: Mapping[str, Any] = {
    "id": USER_ID, "username": "drill", "email": "drill@example.com", "system_name": "drill", "type": "main",
    "security_keys_enabled": False, "mmp_enabled": False, "login_enabled": True, "interuser_transfers_enabled": False,
    "creation_timestamp": 1_600_000_000_000, "self_trading_reject_mode": "cancel_maker", "referrer_id": None,
    "self_trading_extended_to_subaccounts": "false", "receive_notifications": False, "trading_products_details": [],
}
"""What ``extended`` adds."""


def _worst_lots(now: int, change: int) -> int:
    return max(abs(now), abs(now + change))


def _worst(now: float, change: float) -> float:
    """The largest magnitude on the way from ``now`` to ``now + change``."""
    return max(abs(now), abs(now + change))
