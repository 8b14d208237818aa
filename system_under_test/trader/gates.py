"""The gates before an intent is recorded, in the contract's order (section 1.3); a refusal has no side effect.

    DispatchAuth · Preflight · Quantize · DispatchConsistency · FeeCacheCheck · LiquidityGate · NetEdgeGate ·
    inventory skew · pending · global · launch limits · margin · Pricer · RecordedBeforeDispatch

The first and the last are asked by the desk, which holds the guard and the ledger. Closing and hedging pass
Preflight, Quantize and DispatchConsistency only: stale fees, a thin book, an edge or a limit must never keep a
position open. The net-edge gate is policy, not safety: its verdict carries the version of that policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from system_under_test.trader.exposure import Exposure, UnitDelta, delta_of
from system_under_test.trader.limits import LaunchLimits, Opening
from system_under_test.trader.market import Book, Market
from system_under_test.trader.orders import OrderBook
from system_under_test.trader.policy import Refusal
from system_under_test.trader.quantize import (
    OPTION,
    Instrument,
    MetadataMissing,
    Quantized,
    TooSmall,
    consistent,
    quantize,
)
from system_under_test.trader.settings import Settings
from system_under_test.trader.strategy import Leg

WALK_LEVELS = 20
"""How deep a book is walked for the price of a quantity."""

MARK_TICKS = 2
"""So far from the mark the touch may be before its distance counts as slippage."""

OPTION_FEE_CAP = 0.125
"""An option's fee is at most this share of its price (Deribit)."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A leg that passed every gate, on the exchange's grid."""

    leg: Leg
    instrument: Instrument
    quantized: Quantized


@dataclass(frozen=True, slots=True)
class Walk:
    """What taking a quantity from a book costs."""

    average: float
    best: float
    slippage_bps: float


class Gates:
    """Everything that the gates look at."""

    def __init__(
        self, settings: Settings, market: Market, exposure: Exposure, orders: OrderBook, limits: LaunchLimits,
    ) -> None:
        self._settings, self._market, self._exposure = settings, market, exposure
        self._orders, self._limits = orders, limits
        self.fee_ts: int | None = None
        """when the fee model was last confirmed; None is hard-stale (AT-042)"""
        self.mm_util: float | None = None
        self.mismatch = False
        """contracts and amount once said different things; the desk reports it as a cause"""

    def open(
        self, legs: tuple[Leg, ...], gross_edge_usd: float | None, ts: int,
    ) -> tuple[Priced, ...] | Refusal:
        """All legs priced, or the first refusal."""
        for leg in legs:
            refusal = preflight(leg, self._market) or self._instrument_open(leg, ts)
            if refusal is not None:
                return refusal
        priced: list[Priced] = []
        for leg in legs:
            instrument = self._market.instruments[leg.instrument]
            aim = leg.price if leg.price is not None else self._aim(leg, ts)
            # Without a book the quantity is still put on the grid, at one tick: the liquidity gate has its own turn.
            grid = self.on_grid(leg, instrument.tick_size if aim is None else Decimal(aim))
            if isinstance(grid, Refusal):
                return grid
            priced.append(Priced(leg, instrument, grid))
        crossing = [each for each in priced if not each.leg.post_only]
        return (
            self._fees(ts)
            or self._liquidity_and_edge(crossing, gross_edge_usd, ts)
            or self._budgets(priced, ts)
            or self._margin()
            or self._pricer(priced, gross_edge_usd, ts)
        )

    # ---- gates that closing passes too ----

    def on_grid(self, leg: Leg, price: Decimal) -> Quantized | Refusal:
        """Quantize and DispatchConsistency."""
        instrument = self._market.instruments.get(leg.instrument)
        if instrument is None:
            return Refusal("InstrumentMetadataMissing", "quantize", leg.instrument)
        try:
            grid = quantize(instrument, leg.side, Decimal(leg.qty), price)
        except TooSmall as why:
            return Refusal("TooSmallAfterQuantization", "quantize", str(why))
        except (MetadataMissing, ArithmeticError) as why:
            return Refusal("InstrumentMetadataMissing", "quantize", str(why))
        contracts = grid.qty / instrument.contract_size
        if not consistent(instrument, grid.qty, contracts, self._settings.contracts_amount_match_tolerance):
            self.mismatch = True
            return Refusal("ContractsAmountMismatch", "dispatch_consistency", leg.instrument)
        return grid

    # ---- gates of opening ----

    def _instrument_open(self, leg: Leg, ts: int) -> Refusal | None:
        instrument = self._market.instruments.get(leg.instrument)
        fetched = self._market.instruments_ts
        if instrument is None or fetched is None or ts - fetched > self._settings.instrument_cache_ttl_s * 1_000:
            return Refusal("InstrumentMetadataMissing", "quantize", f"{leg.instrument}: unknown or out of date")
        exchange_now = ts + (self._market.exchange_offset or 0)
        if exchange_now >= instrument.expires_ms - self._settings.expiry_delist_buffer_s * 1_000:
            return Refusal("InstrumentExpiredOrDelisted", "preflight", leg.instrument)
        if instrument.state != "open":
            return Refusal("InstrumentExpiredOrDelisted", "preflight", f"{leg.instrument} is {instrument.state}")
        return None

    def _aim(self, leg: Leg, ts: int) -> str | None:
        book = self._market.l2(leg.instrument, ts)
        if book is None:
            return None
        bid, ask = book.best
        level = ask if leg.side == "buy" else bid
        return None if level is None else repr(level[0])

    def _fees(self, ts: int) -> Refusal | None:
        if self.fee_ts is None or ts - self.fee_ts > self._settings.fee_cache_hard_s * 1_000:
            return Refusal("FeeCacheStale", "fee_cache")
        return None

    def _liquidity_and_edge(self, legs: list[Priced], gross_edge_usd: float | None, ts: int) -> Refusal | None:
        if not legs:
            return None
        cost_usd = 0.0
        for each in legs:
            walk = self.liquidity(each.instrument, each.leg.side, float(each.quantized.qty), ts)
            if isinstance(walk, Refusal):
                return walk
            cost_usd += self._fee_usd(each, walk.average, ts) + self._slippage_usd(each, walk)
        return self._net_edge(legs, gross_edge_usd, cost_usd)

    def liquidity(self, instrument: Instrument, side: str, qty: float, ts: int) -> Walk | Refusal:
        """LiquidityGate: a fresh book that gives the quantity near its best price, which is near the mark.

        Only the part beyond two ticks counts as distance from the mark: an option's tick alone is wider than the
        limit, and a touch that has moved away from the mark is as bad as a book that must be walked.
        """
        book = self._market.l2(instrument.name, ts)
        if book is None:
            return Refusal("LiquidityGateNoL2", "liquidity", instrument.name)
        walk = walked(book, side, qty)
        if walk is None:
            return Refusal("InsufficientDepthWithinBudget", "liquidity", instrument.name)
        slippage_bps = walk.slippage_bps
        ticker = self._market.tickers.get(instrument.name)
        if ticker is not None and ticker.mark and ts - ticker.ts <= self._settings.basis_price_max_age_ms:
            away = walk.average - ticker.mark if side == "buy" else ticker.mark - walk.average
            beyond = away - MARK_TICKS * float(instrument.tick_at(Decimal(repr(ticker.mark))))
            slippage_bps = max(slippage_bps, beyond / ticker.mark * 10_000)
        if slippage_bps > self._settings.max_slippage_bps:
            return Refusal("ExpectedSlippageTooHigh", "liquidity", f"{instrument.name} {slippage_bps:.1f} bps")
        return walk

    def _net_edge(self, legs: list[Priced], gross_edge_usd: float | None, cost_usd: float) -> Refusal | None:
        gate = f"net_edge(policy {self._settings.net_edge_policy_version})"
        if gross_edge_usd is None or cost_usd != cost_usd:
            return Refusal("NetEdgeInputMissing", gate)
        net = gross_edge_usd - cost_usd
        if net < self._settings.min_edge_usd:
            return Refusal("NetEdgeTooLow", gate, f"{net:.2f} USD")
        if self._settings.delta_limit_btc <= 0:
            return Refusal("InventorySkewDeltaLimitMissing", "inventory_skew")
        bias = self._bias(legs)
        if net < self._settings.min_edge_usd * (1 + self._settings.inventory_skew_k * bias):
            return Refusal("InventorySkew", "inventory_skew", f"bias {bias:.2f}")
        return None

    def _bias(self, legs: list[Priced]) -> float:
        """How far the account already leans the way that these legs lean, 0 to 1."""
        unit = self._market.unit_delta
        held = delta_of(self._exposure.positions, unit)
        if held is None:
            return 1.0
        lean = sum(_signed(each) * (unit(each.leg.instrument) or 0.0) for each in legs)
        return min(1.0, abs(held) / self._settings.delta_limit_btc) if held * lean > 0 else 0.0

    def _budgets(self, legs: list[Priced], ts: int) -> Refusal | None:
        unit, index = self._market.unit_delta, self._market.index
        if index is None:
            return Refusal("PendingExposureBudgetExceeded", "pending", "the index is unknown")
        delta_now = delta_of(self._exposure.positions, unit)
        if delta_now is None:
            return Refusal("GlobalExposureBudgetExceeded", "global", "the delta of what is held is unknown")
        gross_usd = self._gross_usd(index)
        worst_delta = self._worst_delta(legs, delta_now, unit)
        for each in legs:
            name, side = each.leg.instrument, each.leg.side
            size_btc = self._btc(each.instrument, float(each.quantized.qty), index)
            worst = self._btc(each.instrument, float(self._worst(name, side)), index) + size_btc
            if worst > self._settings.pending_exposure_limit_btc:
                return Refusal("PendingExposureBudgetExceeded", "pending", f"{name}: {worst:.2f} BTC")
            gross_usd += size_btc * index
            if not worst_delta <= self._settings.global_exposure_limit_btc:
                return Refusal("GlobalExposureBudgetExceeded", "global", f"{worst_delta:.2f} BTC")
            notional = self._notional_usd(each, index)
            refusal = self._limits.refuses(ts, Opening(
                amount_btc=size_btc, amount_usd=notional, position_btc_after=worst,
                net_delta_btc_after=worst_delta, gross_notional_usd_after=gross_usd, orders=len(legs)))
            if refusal is not None:
                return refusal
        return None

    def _worst_delta(self, legs: list[Priced], delta_now: float, unit: UnitDelta) -> float:
        """The largest |net delta| on the way, BTC: everything under way and new that pulls one way fills, and nothing
        that pulls the other way does."""
        pulls = [_signed(each) * (unit(each.leg.instrument) or 0.0) for each in legs]
        pulls += [float(qty if side == "buy" else -qty) * (unit(name) or 0.0)
                  for name, side, qty in self._orders.under_way()]
        up, down = sum(each for each in pulls if each > 0), sum(each for each in pulls if each < 0)
        return max(abs(delta_now + up), abs(delta_now + down))

    def _worst(self, instrument: str, side: str) -> Decimal:
        """The position if everything that is under way in this direction were filled, as a size."""
        held = self._exposure.of(instrument)
        towards = held if side == "buy" else -held
        return max(Decimal(0), towards) + self._orders.pending(instrument, side)

    def _gross_usd(self, index: float) -> float:
        total = 0.0
        for name, size in self._exposure.positions.items():
            instrument = self._market.instruments.get(name)
            if instrument is not None:
                total += self._btc(instrument, abs(float(size)), index) * index
        return total + self._orders.pending_notional(lambda name, qty: self._usd(name, qty, index))

    def _usd(self, name: str, qty: float, index: float) -> float:
        instrument = self._market.instruments.get(name)
        return 0.0 if instrument is None else self._btc(instrument, qty, index) * index

    def _margin(self) -> Refusal | None:
        if self.mm_util is None or self.mm_util >= self._settings.mm_util_reject_opens:
            return Refusal("MarginHeadroomRejectOpens", "margin", f"mm_util {self.mm_util}")
        return None

    def _pricer(self, legs: list[Priced], gross_edge_usd: float | None, ts: int) -> tuple[Priced, ...] | Refusal:
        """Limit prices that reach the market as far as the slippage budget allows, and never past what the belief is
        worth: a market that moves within the budget while the order travels must not leave one leg behind."""
        final: list[Priced] = []
        for number, each in enumerate(legs):
            if each.leg.price is not None:
                final.append(each)
                continue
            book, index = self._market.l2(each.leg.instrument, ts), self._market.index
            if book is None or index is None:
                return Refusal("LiquidityGateNoL2", "pricer", each.leg.instrument)
            edge_usd = gross_edge_usd if number == 0 and gross_edge_usd is not None else 0.0
            price = self._limit_price(each, book, edge_usd, index)
            grid = self.on_grid(each.leg, price)
            if isinstance(grid, Refusal):
                return grid
            final.append(Priced(each.leg, each.instrument, grid))
        return tuple(final)

    def _limit_price(self, each: Priced, book: Book, edge_usd: float, index: float) -> Decimal:
        bid, ask = book.best
        touch = (ask if each.leg.side == "buy" else bid) or (0.0, 0.0)
        best = Decimal(repr(touch[0]))
        tick = each.instrument.tick_at(best)
        budget = best * Decimal(repr(self._settings.max_slippage_bps)) / 10_000
        cross = max(tick * self._settings.rescue_cross_spread_ticks, budget)
        reach = best + cross if each.leg.side == "buy" else best - cross
        if edge_usd <= 0 or each.instrument.kind != OPTION or bid is None or ask is None:
            return max(reach, tick)
        fair = (bid[0] + ask[0]) / 2 + edge_usd / (float(each.quantized.qty) * index)
        worth = Decimal(repr(fair - 0.5 * edge_usd / (float(each.quantized.qty) * index)))
        return max(min(reach, worth) if each.leg.side == "buy" else reach, tick)

    # ---- units ----

    def _fee_usd(self, each: Priced, price: float, ts: int) -> float:
        index = self._market.index or float("nan")
        qty, fee = float(each.quantized.qty), each.instrument.taker_fee
        usd = qty * fee if each.instrument.inverse else qty * min(fee, OPTION_FEE_CAP * price) * index
        soft = self.fee_ts is not None and ts - self.fee_ts > self._settings.fee_cache_soft_s * 1_000
        return usd * (1 + self._settings.fee_stale_buffer) if soft else usd

    def _slippage_usd(self, each: Priced, walk: Walk) -> float:
        return abs(walk.average - walk.best) / walk.best * self._notional_usd(each, self._market.index or float("nan"))

    def _notional_usd(self, each: Priced, index: float) -> float:
        return float(each.quantized.qty) * (1.0 if each.instrument.inverse else index)

    @staticmethod
    def _btc(instrument: Instrument, qty: float, index: float) -> float:
        return qty / index if instrument.inverse else qty


def preflight(leg: Leg, market: Market) -> Refusal | None:
    """What must not be sent at all: the door knows limit orders only, and a post-only order must not cross."""
    if leg.trigger is not None or leg.type.startswith(("stop", "take", "trailing")):
        return Refusal("OrderTypeStopForbidden", "preflight", leg.trigger or leg.type)
    if leg.linked is not None:
        return Refusal("LinkedOrderTypeForbidden", "preflight", leg.linked)
    if leg.type != "limit":
        return Refusal("OrderTypeMarketForbidden", "preflight", leg.type)
    if leg.side not in ("buy", "sell"):
        return Refusal("OrderTypeMarketForbidden", "preflight", f"side {leg.side!r}")
    if leg.time_in_force not in ("immediate_or_cancel", "good_til_cancelled"):
        return Refusal("OrderTypeStopForbidden", "preflight", leg.time_in_force)
    if leg.post_only:
        if leg.price is None:
            return Refusal("OrderTypeMarketForbidden", "preflight", "a resting order needs its price")
        book = market.books.get(leg.instrument)
        bid, ask = book.best if book is not None else (None, None)
        crosses = (ask is not None and float(leg.price) >= ask[0]) if leg.side == "buy" else (
            bid is not None and float(leg.price) <= bid[0])
        if crosses:
            return Refusal("PostOnlyWouldCross", "preflight", leg.instrument)
    return None


def walked(book: Book, side: str, qty: float) -> Walk | None:
    """The average price of taking a quantity, and how far it is from the best; None when the book is too thin."""
    levels = book.levels("asks" if side == "buy" else "bids", WALK_LEVELS)
    if not levels:
        return None
    left, paid = qty, 0.0
    for price, amount in levels:
        take = min(left, amount)
        paid += take * price
        left -= take
        if left <= 1e-12:
            average, best = paid / qty, levels[0][0]
            return Walk(average, best, abs(average - best) / best * 10_000)
    return None


def _signed(each: Priced) -> float:
    qty = float(each.quantized.qty)
    return qty if each.leg.side == "buy" else -qty


def closing_price(
    market: Market, instrument: Instrument, side: str, ticks: int, ts: int,
) -> Decimal | None:
    """The limit of a closing order: the best price of a fresh book, else of a fresh ticker, crossed by so many ticks.

    None when there is no price to go by (EmergencyCloseNoPrice).
    """
    touch = market.touch(instrument.name, ts)
    if touch is None:
        return None
    best = Decimal(repr(touch[1] if side == "buy" else touch[0]))
    tick = instrument.tick_at(best)
    return max(best + tick * ticks * (1 if side == "buy" else -1), tick)
