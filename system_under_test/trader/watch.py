"""The watch: it collects what the guard decides on, sets the latch when trust is lost, and clears it when earned.

Every tick all producers are fed with what was measured since; the guard's snapshot is taken from them whenever it
is asked for. A latch code is cleared only when its condition has been good for its dwell and a reconciliation that
was begun after that has found nothing wrong; all codes leave together, and none while an operator is waited for.
"""

from __future__ import annotations

from collections.abc import Callable

from system_under_test.machine import Look, Now
from system_under_test.trader import acknowledge, certificate, refresher
from system_under_test.trader.breaker import KILL_CODE, TERMINATED, Breaker
from system_under_test.trader.bunker import Bunker
from system_under_test.trader.clock_gate import ClockGate
from system_under_test.trader.cortex import Cortex
from system_under_test.trader.emergency import Emergency
from system_under_test.trader.latch import PERMITTED, Latch
from system_under_test.trader.ledger import History, Ledger
from system_under_test.trader.limits import LaunchLimits
from system_under_test.trader.market import Market
from system_under_test.trader.policy import Decision, Snapshot, decide
from system_under_test.trader.pulse import Pulse
from system_under_test.trader.report.status import Readings
from system_under_test.trader.risk import MANUAL_CODE, Causes
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import MARKET_DATA, ORDERS, Venue

RESTART = "RESTART_RECONCILE_REQUIRED"
BOOK_GAP = "WS_BOOK_GAP_RECONCILE_REQUIRED"
TRADES_GAP = "WS_TRADES_GAP_RECONCILE_REQUIRED"
DATA_STALE = "WS_DATA_STALE_RECONCILE_REQUIRED"
INVENTORY = "INVENTORY_MISMATCH_RECONCILE_REQUIRED"
SESSION = "SESSION_TERMINATION_RECONCILE_REQUIRED"

DWELL = {
    RESTART: "restart_clear_dwell_ms", BOOK_GAP: "gap_clear_dwell_ms", TRADES_GAP: "gap_clear_dwell_ms",
    DATA_STALE: "stale_clear_dwell_ms", INVENTORY: "gap_clear_dwell_ms", SESSION: "session_clear_dwell_ms",
}
"""Policy key of how long the condition of a code must have been good."""

LOCKED_WORDS = frozenset(("true", "partial", "false"))
"""What ``public/status`` may say (Deribit)."""

BEAT_STEADY_MS = 1_500
"""The watchdog asks twice a second; one question of three may be lost."""

UNSEEN = (None, None)
"""A disk that was never measured: its use, and when."""

SESSION_END_MS = 1_000
"""A 10028 whose connection closes within this time has ended the session; else it was a rate limit."""


class Watch:
    """Inputs of the guard. Times in monotonic-epoch ms."""

    def __init__(self, settings: Settings, now: Now, ts: int, history: History, *, market: Market, venue: Venue,
                 ledger: Ledger, limits: LaunchLimits, breaker: Breaker) -> None:
        self._settings, self._market, self._venue, self._ledger = settings, market, venue, ledger
        self._limits, self.breaker = limits, breaker
        self.latch = Latch.restored(history.rows)
        self.causes = Causes(settings)
        self.causes.restore(history.rows)
        breaker.restore(history.rows, ts)
        if breaker.session_kill_active:  # as long as the brownout after it refuses, the mode says so
            self.causes.pulse("rate_limited", breaker.troubled_ms)
        self.cortex = Cortex(settings, ts)
        self.cortex.restore(history.rows)
        self.bunker = Bunker(settings, ts)
        self.emergency = Emergency(settings)
        self.emergency.restore(history.rows, ts)
        self.clock = ClockGate(settings, now)
        self.refresher = refresher.PolicyRefresher(settings)
        self.decision: Decision | None = None
        lost_ms, dwell_ms = settings.watchdog_kill_s * 1_000, settings.loop_clear_dwell_ms
        self.heartbeat = Pulse(lost_after_ms=lost_ms, steady_ms=BEAT_STEADY_MS, dwell_ms=settings.watchdog_clear_dwell_ms)
        self.loop = Pulse(lost_after_ms=lost_ms, steady_ms=5 * settings.tick_interval_ms, dwell_ms=dwell_ms)
        self.mm_util: float | None = None
        self.mm_util_ts: int | None = None
        self.fee_ts: int | None = None
        self.locked = False
        self.exposed: Callable[[], bool] = lambda: False
        self.haunted: Callable[[], bool] = lambda: False
        """whether an order that nobody knows still lies on the books"""
        self.containing: Callable[[], bool] = lambda: False
        self.fact: Callable[[Turn, dict[str, object]], None] = lambda turn, row: None
        self.reconciled_ts: Callable[[], int | None] = lambda: None
        self.ask_reconciliation: Callable[[int], None] = lambda ts: None
        self._disk: dict[str, tuple[float, int]] = {}
        self._laid_out: bytes | None = None
        self._certificate = certificate.read(None, settings)
        self._used = {str(row["digest"]) for row in history.rows if row.get("kind") == "operator" and "digest" in row}
        self._refused_note: str | None = None
        self._good_since: dict[str, int] = {}
        self._was_connected = False
        self._mismatched_ts: int | None = None
        self._gap_ts: int | None = None
        self._doubted: dict[str, list[int]] = {}
        self._look_ts = 0
        self._policy_ts = 0

    # ---- the guard's snapshot ----

    def snapshot(self, turn: Turn) -> Snapshot:
        """Every input of the guard at this moment."""
        ts = turn.ts
        primary, primary_ts = self._disk.get("disk_primary", UNSEEN)
        secondary, secondary_ts = self._disk.get("disk_secondary", UNSEEN)
        cert, latch, breaker, emergency = self._certificate.at(ts), self.latch, self.breaker, self.emergency
        blocked = latch.state != PERMITTED
        return Snapshot(
            now_ms=ts, risk_state=self.causes.state(ts), heartbeat_ts_ms=self.heartbeat.ts,
            loop_tick_ts_ms=self.loop.ts, mm_util=self.mm_util, mm_util_ts_ms=self.mm_util_ts,
            session_kill_active=breaker.state == TERMINATED, count_10028_5m=breaker.count_10028(ts),
            count_429_5m=breaker.count_429(ts), disk_used_pct=primary, disk_used_ts_ms=primary_ts,
            disk_used_pct_secondary=secondary, disk_used_secondary_ts_ms=secondary_ts,
            cortex_override=self.cortex.override(ts),
            emergency_active=emergency.asked and emergency.active(ts, safe=not blocked and not self.containing()),
            latch_blocked=blocked, latch_codes=latch.codes if blocked else (), bunker_active=self.bunker.active,
            cert_state=cert.state, cert_expires_at=cert.expires_at, evidence_chain_state=None, fee_cache_ts_ms=self.fee_ts,
            policy_generated_ts_ms=self.refresher.generated_ts_ms)

    def decide(self, turn: Turn, snapshot: Snapshot) -> Decision:
        """The mode of this moment; a change is noted."""
        decision = decide(snapshot, self._settings)
        before = self.decision
        if before is None or (decision is not before and decision != before):
            turn.note("mode", None, to=decision.mode, reasons=list(decision.reasons),
                      **{"from": before.mode if before else None})
            self.decision = decision
        return decision

    @property
    def mode(self) -> str:
        """The mode of the last decision; ReduceOnly before the first."""
        return self.decision.mode if self.decision is not None else "ReduceOnly"

    # ---- the latch ----

    def set_latch(self, turn: Turn, code: str, *, manual: bool = False) -> None:
        """Trust is lost: opening is blocked until a reconciliation has earned it again."""
        self._good_since.pop(code, None)
        if self.latch.set(code, turn.ts, manual=manual):
            self.fact(turn, {"kind": "latch", **self.latch.row("set", code)})
            turn.note("latch", None, event="set", codes=list(self.latch.codes))
        self.ask_reconciliation(turn.ts)

    def _conditions(self, turn: Turn) -> dict[str, bool]:
        ts = turn.ts
        return {
            RESTART: self.reconciled_ts() is not None and self._inputs_present(),
            BOOK_GAP: not self._market.gapped() and self._venue.ready(MARKET_DATA),
            TRADES_GAP: self._venue.ready(MARKET_DATA),
            DATA_STALE: self._market.current(ts),
            INVENTORY: not self.haunted() and (
                self._mismatched_ts is None or (self.reconciled_ts() or 0) > self._mismatched_ts),
            SESSION: self._venue.ready(ORDERS),
        }

    def _inputs_present(self) -> bool:
        disks = "disk_primary" in self._disk and "disk_secondary" in self._disk
        known = None not in (self.mm_util, self.heartbeat.ts, self.fee_ts, self.refresher.generated_ts_ms)
        return disks and known and self._venue.ready(ORDERS) and self._market.last_ts is not None

    def _earn(self, turn: Turn) -> None:
        """Clear the latch when everything about it is good again, and say so."""
        if not self.latch.blocked:
            return
        good = self._conditions(turn)
        ready_ts = 0
        for code in self.latch.codes:
            if not good[code]:
                self._good_since.pop(code, None)
                return
            since = self._good_since.setdefault(code, turn.ts)
            ready_ts = max(ready_ts, since + int(getattr(self._settings, DWELL[code])))
        if turn.ts < ready_ts or not self.latch.may_clear() or self.breaker.waits:
            return
        reconciled = self.reconciled_ts()
        if reconciled is None or reconciled < ready_ts:
            self.ask_reconciliation(turn.ts)
            return
        cleared = self.latch.clear()
        for code in cleared:
            self.fact(turn, {"kind": "latch", **self.latch.row("cleared", code)})
        turn.note("latch", None, event="cleared", codes=list(cleared))
        if self.breaker.reconciled(turn.ts):
            turn.note("breaker", None, state=self.breaker.state)
        self._good_since.clear()

    # ---- what happens ----

    def limited(self, turn: Turn, link: str, status: int) -> None:
        """429, or 10028 over a link. Whether a 10028 ended the session shows when its connection closes."""
        self.causes.pulse("rate_limited", turn.ts)
        if status == 429:
            self._breaker_changed(turn, self.breaker.answer_429(turn.ts))
        elif link in (ORDERS, MARKET_DATA):
            self._doubted.setdefault(link, []).append(turn.ts)
        else:
            self._terminated(turn, link, 1)

    def _terminated(self, turn: Turn, link: str, answers: int) -> None:
        self.causes.pulse("rate_limited", turn.ts)  # as long as the brownout refuses, the mode says so
        for _ in range(answers):
            self._breaker_changed(turn, self.breaker.answer_10028(turn.ts))
            self.fact(turn, {"kind": "session_end", "link": link})
        turn.note("session_terminated", None, link=link)
        confirmed = self.breaker.confirms(turn.ts)
        if confirmed is not None:
            self.fact(turn, {"kind": "latch", "event": "set", "code": KILL_CODE, "manual": True, "count": confirmed})
            turn.note("session_kill", None, count=confirmed)
        self.causes.report("session_terminated", True, turn.ts)
        self.set_latch(turn, SESSION, manual=True)

    def _breaker_changed(self, turn: Turn, changed: bool) -> None:
        if changed:
            turn.note("breaker", None, state=self.breaker.state)

    def link_down(self, turn: Turn, link: str, was_ready: bool) -> None:
        """A link went down. Losing the private one is a session that ended, whoever ended it."""
        doubted = self._doubted.pop(link, None)
        if doubted:
            self._terminated(turn, link, len(doubted))
        elif link == ORDERS and was_ready:
            self.set_latch(turn, SESSION)
        if link == MARKET_DATA:
            self._market.reconnected()

    def link_up(self, turn: Turn, link: str) -> None:
        """A link has finished its handshake."""
        if link == ORDERS:
            self._was_connected = True
        turn.note("reconnect", None, link=link, generation=self._venue.links[link].generation)

    def gap(self, turn: Turn, code: str, instrument: str) -> None:
        """A sequence of the market data is broken."""
        self._gap_ts = turn.ts
        self.set_latch(turn, code)

    def mismatch(self, turn: Turn, why: str) -> None:
        """Positions differ from the exchange's, or an order is on its books that we know nothing of."""
        self._mismatched_ts = turn.ts
        turn.note("mismatch", None, why=why)
        self.set_latch(turn, INVENTORY)

    def token(self, turn: Turn, token: str) -> None:
        """A word that no registry knows: this build must not go on trading on what it does not understand."""
        if self.cortex.unknown_token(token):
            self.fact(turn, {"kind": "token", **self.cortex.token_row(token)})
            turn.note("token", None, token=token)

    def platform(self, turn: Turn, locked: object) -> None:
        """What the platform says about being locked, as text or as a bool."""
        word = str(locked).lower()
        if word not in LOCKED_WORDS:
            self.token(turn, f"platform_locked:{locked}")
            return
        self.locked = word == "true"

    def maintenance(self, turn: Turn) -> None:
        """The exchange answered that it is being maintained."""
        self.causes.pulse("maintenance", turn.ts)

    def lagged(self, turn: Turn, lag_ms: int) -> None:
        """How late the loop's turn is. One that cannot keep up with its queue decides on what was (AT-925)."""
        late = lag_ms >= self._settings.loop_lag_degraded_ms
        if lag_ms >= self._settings.loop_lag_noted_ms:
            turn.note("lagging", None, lag_ms=lag_ms)
        if late or "loop_lag" in self.causes.present:
            self.causes.report("loop_lag", late, turn.ts)
        if lag_ms > self._settings.ws_data_stale_ms:  # what was told meanwhile is as old as that, in whatever order it comes
            self.set_latch(turn, DATA_STALE)

    # ---- what is looked at ----

    def look(self, turn: Turn) -> None:
        """Ask for what lies outside: disk, certificate, policy, the operator's note."""
        if turn.ts >= self._look_ts:
            self._look_ts = turn.ts + self._settings.disk_poll_ms
            for source in ("disk_primary", "disk_secondary", certificate.FILE):
                turn.send(Look(source))
            if self._waiting():
                turn.send(Look(acknowledge.FILE))
        if turn.ts >= self._policy_ts:
            self._policy_ts = turn.ts + self._settings.policy_refresh_ms
            turn.send(Look(refresher.FILE))

    def seen(self, turn: Turn, source: str, value: bytes | None, why: str) -> None:
        """What was looked at."""
        if source in ("disk_primary", "disk_secondary"):
            self._disk_seen(turn, source, value)
        elif source == certificate.FILE:
            if value != self._laid_out:  # the same bytes mean the same
                self._laid_out, self._certificate = value, certificate.read(value, self._settings)
        elif source == refresher.FILE:
            refused = self.refresher.read(value, turn.ts)
            if refused is not None:
                turn.note("policy_unconfirmed", None, why=refused)
        elif source == acknowledge.FILE:
            self._acknowledged(turn, value)

    def _disk_seen(self, turn: Turn, source: str, value: bytes | None) -> None:
        try:
            used = float(value) if value is not None else None
        except ValueError:
            used = None
        if used is None or not 0 <= used <= 1:
            return  # an unreadable measurement is none: the last one grows old, and the guard says so
        self._disk[source] = (used, turn.ts)
        if source == "disk_primary":
            self.causes.disk(used, turn.ts)

    def _acknowledged(self, turn: Turn, value: bytes | None) -> None:
        note = acknowledge.read(value, self._waiting(), self._used)
        if isinstance(note, str):
            if note != self._refused_note:
                turn.note("acknowledgement_refused", None, why=note)
            self._refused_note = note
        elif note is not None:
            self._used.add(note.digest)
            self.fact(turn, {"kind": "operator", "code": note.code, "reason": note.reason, "name": note.name,
                             "digest": note.digest})
            turn.note("acknowledged", None, code=note.code, name=note.name)
            if note.code == MANUAL_CODE:
                self.causes.acknowledge()
            elif note.code == KILL_CODE:  # who signs for the Kill signs for the sessions that it is made of
                self.breaker.acknowledge()
                if SESSION in self.latch.manual_codes:
                    self.latch.acknowledge(SESSION)
            else:
                self.latch.acknowledge(note.code)
            self.ask_reconciliation(turn.ts)

    def _waiting(self) -> tuple[str, ...]:
        """The codes that wait for an operator."""
        return (*self.latch.manual_codes, *((MANUAL_CODE,) if self.causes.manual else ()),
                *((KILL_CODE,) if self.breaker.waits else ()))

    # ---- every tick ----

    def tick(self, turn: Turn) -> None:
        """Feed every producer; then see whether the latch must be set, or may be cleared."""
        ts = turn.ts
        self.loop.beat(ts)
        causes, breaker = self.causes, self.breaker
        if self._doubted:
            self._settle_doubts(turn)
        if breaker.tick(ts):
            self._breaker_changed(turn, True)
        containing = self.containing()
        for cause, present in self._looked_for(turn, containing):
            if present or cause in causes.present:  # that an absent cause is still absent is no news
                causes.report(cause, present, ts)
        if self._limits.loss_reached and causes.report("max_loss", True, ts):
            self.fact(turn, {"kind": "latch", "event": "set", "code": MANUAL_CODE, "manual": True, "cause": "max_loss"})
        if containing:
            self.emergency.containment(ts)
        self._market_tick(turn)
        self._earn(turn)

    def _settle_doubts(self, turn: Turn) -> None:
        """A 10028 whose connection has stayed open was a rate limit."""
        ts = turn.ts
        for link, since in list(self._doubted.items()):
            if ts - since[-1] > SESSION_END_MS:
                del self._doubted[link]
                self.causes.pulse("rate_limited", ts)  # as long as the brownout refuses, the mode says so
                for _ in since:
                    self._breaker_changed(turn, self.breaker.answer_429(ts))

    def _looked_for(self, turn: Turn, containing: bool) -> tuple[tuple[str, bool], ...]:
        """The causes that every tick looks for, and whether each is present now."""
        ts, settings, ledger = turn.ts, self._settings, self._ledger
        fees, fetched = self.fee_ts, self._market.instruments_ts
        recent = ledger.refused_ts is not None and ts - ledger.refused_ts <= settings.tick_interval_ms
        return (
            ("session_terminated", self.breaker.state == TERMINATED),
            ("connection_lost", self._was_connected and not self._venue.ready(ORDERS)),
            ("maintenance", self.locked),
            ("clock_drift", self.clock.tripped(turn.now)),
            ("wal_backpressure", recent or ledger.refusing or ledger.depth >= ledger.capacity),
            ("fee_hard_stale", fees is not None and ts - fees > settings.fee_cache_hard_s * 1_000),
            ("instrument_stale", fetched is not None and ts - fetched > settings.instrument_cache_ttl_s * 1_000),
            ("mixed_failed", containing),
        )

    def _market_tick(self, turn: Turn) -> None:
        ts, settings, market = turn.ts, self._settings, self._market
        self.bunker.tick(ts)
        spread, depth, feed = market.depth_usd(settings.perpetual, settings.depth_levels)
        if feed is not None and market.last_ts is not None and market.last_ts > feed:
            feed = market.last_ts
        if depth is not None:  # a book that waits to be rebuilt is not known to be thin: its last reading grows old
            self.cortex.book(ts, spread, depth, feed)
        ticker = market.tickers.get(settings.perpetual)
        if ticker is not None:
            self.cortex.basis(ts, ticker.mark, ticker.last, ticker.index, ticker.ts)
        if market.stale(ts) and DATA_STALE not in self.latch.codes and (self.exposed() or self._active(ts)):
            turn.note("gap", None, channel="*", instrument="*", kind="stale")
            self.set_latch(turn, DATA_STALE)

    def _active(self, ts: int) -> bool:
        """Whether the feed was good recently enough for its silence to mean something."""
        last = self._market.last_ts
        return last is not None and ts - last <= self._settings.ws_zombie_activity_window_ms

    # ---- reporting ----

    def readings(self, turn: Turn, snapshot: Snapshot, *, naked: int, net_delta: float | None) -> Readings:
        """What the status document is built from: the very snapshot that was decided on."""
        ts = turn.ts
        cortex, causes = self.cortex, self.causes.owner(ts)
        if snapshot.cortex_override != "None":
            causes |= cortex.owner(ts)
        if self._settings.deployment_environment == "PAPER":
            causes |= {"paper"}
        return Readings(
            snapshot=snapshot, decision=self.decide(turn, snapshot), wal_queue_depth=self._ledger.depth,
            wal_queue_enqueue_failures=self._ledger.enqueue_failures, atomic_naked_events_24h=naked,
            http_p95_ms=self.bunker.p95_ms, ws_event_lag_ms=self.bunker.lag_ms(ts), causes=causes,
            net_delta_btc=net_delta, time_drift_ms=self.clock.drift_ms(turn.now),
            spread_bps=cortex.spread_bps, depth_usd=cortex.depth_usd)

