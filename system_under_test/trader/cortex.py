"""The cortex: producers that watch the market and the exchange, each with a vote; the worst vote wins.

No producer can overrule another, and the order of events does not matter (AT-418). An input that is missing
votes for reduce-only while it is missing, after a grace at boot; a producer that has tripped keeps its vote for
its cooldown. A vote for Kill that stood when sight was lost stays: losing sight must not loosen.

Thresholds are the contract's (section 2.3): spread and depth of the watched book, jumps of the volatility index,
the basis between mark, last and index, announcements of the exchange, and tokens that no registry knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache

from system_under_test.trader.settings import Settings

NONE = "None"
FORCE_REDUCE_ONLY = "ForceReduceOnly"
FORCE_KILL = "ForceKill"
_BY_SEVERITY = (NONE, FORCE_REDUCE_ONLY, FORCE_KILL)
_CALM, _REDUCE, _KILL = range(3)
LONG_AGO = -(1 << 62)
"""A time stamp of what never was: older than any age that is asked for."""

TOKENS_MAX = 256
"""So many unknown words are remembered by name; one would do for the vote."""

_CAUSES = ("unknown_token", "liquidity", "basis", "price_missing", "volatility", "announcements")
"""Who votes, in the owner section's words."""


class _Held:
    """Whether a condition has held without a break for a whole window."""

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._since: int | None = None

    def update(self, condition: bool, now_ms: int) -> bool:
        if not condition:
            self._since = None
            return False
        if self._since is None:
            self._since = now_ms
        return now_ms - self._since >= self._window_ms


class _Microstructure:
    """Spread and depth of the watched book."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        window_ms = settings.cortex_kill_window_s * 1_000
        self._wide, self._thin = _Held(window_ms), _Held(window_ms)
        self.kills = False
        self.reduces_until_ms = LONG_AGO
        self.fresh_ts_ms = LONG_AGO
        self.spread_bps: float | None = None
        self.depth_usd: float | None = None

    def observe(self, now_ms: int, spread_bps: float | None, depth_usd: float | None, fresh_ts_ms: int | None) -> None:
        self.fresh_ts_ms = LONG_AGO if fresh_ts_ms is None else fresh_ts_ms
        if now_ms - self.fresh_ts_ms > self._settings.cortex_book_max_age_ms:
            return
        self.spread_bps, self.depth_usd = spread_bps, depth_usd
        limits = self._settings
        wide = self._wide.update(spread_bps is not None and spread_bps >= limits.spread_kill_bps, now_ms)
        thin = self._thin.update(depth_usd is not None and depth_usd <= limits.depth_kill_min, now_ms)
        self.kills = wide or thin
        unusable = spread_bps is None or depth_usd is None  # crossed, or a side is empty
        if unusable or spread_bps > limits.spread_max_bps or depth_usd < limits.depth_min:  # type: ignore[operator]
            self.reduces_until_ms = now_ms + limits.spread_depth_cooldown_s * 1_000


class _Basis:
    """How far mark, last and index price are apart."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._apart = _Held(settings.basis_reduceonly_window_s * 1_000)
        self._far_apart = _Held(settings.basis_kill_window_s * 1_000)
        self.kills = False
        self.reduces_until_ms = LONG_AGO
        self.fresh_ts_ms = LONG_AGO

    def observe(self, now_ms: int, mark: float | None, last: float | None, index: float | None,
                ts_ms: int | None) -> None:
        if mark is None or last is None or index is None or not (mark > 0 and last > 0 and index > 0):
            self.fresh_ts_ms = LONG_AGO
            return
        self.fresh_ts_ms = LONG_AGO if ts_ms is None else ts_ms
        if now_ms - self.fresh_ts_ms > self._settings.basis_price_max_age_ms:
            return
        bps = max(abs(mark - last) / last, abs(mark - index) / index) * 10_000
        self.kills = self._far_apart.update(bps >= self._settings.basis_kill_bps, now_ms)
        if self._apart.update(bps >= self._settings.basis_reduceonly_bps, now_ms):
            self.reduces_until_ms = now_ms + self._settings.basis_reduceonly_cooldown_s * 1_000


class _Volatility:
    """Jumps of the volatility index. Before its first reading it has no vote."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: deque[tuple[int, float]] = deque()
        self.reduces_until_ms = LONG_AGO

    def observe(self, now_ms: int, value: float) -> None:
        oldest = now_ms - self._settings.dvol_jump_window_s * 1_000
        while self._seen and self._seen[0][0] < oldest:
            self._seen.popleft()
        self._seen.append((now_ms, value))
        lowest = min([each for _, each in self._seen])
        if lowest > 0 and value / lowest - 1 >= self._settings.dvol_jump_pct - 1e-12:
            self.reduces_until_ms = now_ms + self._settings.dvol_cooldown_s * 1_000


class Cortex:
    """All producers, and the override they agree on."""

    def __init__(self, settings: Settings, booted_ms: int) -> None:
        self._settings = settings
        self._booted_ms = booted_ms
        self._micro = _Microstructure(settings)
        self._basis = _Basis(settings)
        self._volatility = _Volatility(settings)
        self._announced_ms = booted_ms
        self._tokens: dict[str, None] = {}

    def restore(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Unknown tokens from the ledger's ``token`` rows: they bind the build and configuration that met them."""
        for row in rows:
            if row.get("kind") != "token" or not isinstance(row.get("token"), str):
                continue
            if (row.get("build_id"), row.get("config_hash")) == self._identity():
                self._tokens[str(row["token"])] = None

    def unknown_token(self, token: str) -> bool:
        """A word that no registry knows was met. True when it is the first time (a ledger row is due). Beyond TOKENS_MAX
        no further one is kept: the vote is the worst already."""
        if token in self._tokens or len(self._tokens) >= TOKENS_MAX:
            return False
        self._tokens[token] = None
        return True

    def token_row(self, token: str) -> dict[str, object]:
        """The fields of the ledger row ``token``."""
        build_id, config_hash = self._identity()
        return {"token": token, "build_id": build_id, "config_hash": config_hash}

    def book(self, now_ms: int, spread_bps: float | None, depth_usd: float | None, fresh_ts_ms: int | None) -> None:
        """The watched book as it is now. An empty side has depth 0; ``fresh_ts_ms`` is its last news."""
        self._micro.observe(now_ms, spread_bps, depth_usd, fresh_ts_ms)

    def basis(self, now_ms: int, mark: float | None, last: float | None, index: float | None,
              ts_ms: int | None) -> None:
        """The three prices of the watched instrument, and when they were told."""
        self._basis.observe(now_ms, mark, last, index, ts_ms)

    def dvol(self, now_ms: int, value: float) -> None:
        """A reading of the volatility index."""
        self._volatility.observe(now_ms, value)

    def health(self, now_ms: int, ok: bool) -> None:
        """The exchange's announcements were polled: readable, or not."""
        if ok:
            self._announced_ms = now_ms

    @property
    def spread_bps(self) -> float | None:
        """Last spread seen, for the owner's view."""
        return self._micro.spread_bps

    @property
    def depth_usd(self) -> float | None:
        """Last depth seen, for the owner's view."""
        return self._micro.depth_usd

    def votes(self, now_ms: int) -> dict[str, int]:
        """Severity by cause, in the owner section's words; only causes that vote."""
        return {cause: vote for cause, vote in zip(_CAUSES, self._ballot(now_ms), strict=True) if vote}

    def _ballot(self, now_ms: int) -> tuple[int, ...]:
        """The votes in the order of the causes. One straight line, because it is asked for with every snapshot."""
        settings, micro, basis = self._settings, self._micro, self._basis
        missing = now_ms - self._booted_ms > settings.cortex_boot_grace_ms and (
            now_ms - micro.fresh_ts_ms > settings.cortex_book_max_age_ms
            or now_ms - basis.fresh_ts_ms > settings.basis_price_max_age_ms)
        silent = now_ms - self._announced_ms >= settings.exchange_health_stale_s * 1_000
        return (
            _KILL if self._tokens else _CALM,
            _KILL if micro.kills else _REDUCE if now_ms < micro.reduces_until_ms else _CALM,
            _KILL if basis.kills else _REDUCE if now_ms < basis.reduces_until_ms else _CALM,
            _REDUCE if missing else _CALM,
            _REDUCE if now_ms < self._volatility.reduces_until_ms else _CALM,
            _REDUCE if silent else _CALM,
        )

    def override(self, now_ms: int) -> str:
        """The effective override: the worst vote."""
        return _BY_SEVERITY[max(self._ballot(now_ms))]

    def owner(self, now_ms: int) -> frozenset[str]:
        """The causes that carry the override: those whose vote is the worst one."""
        return _carried(self._ballot(now_ms))

    def _identity(self) -> tuple[str, str]:
        return self._settings.build_id, self._settings.runtime_config_hash


@lru_cache(maxsize=256)
def _carried(ballot: tuple[int, ...]) -> frozenset[str]:
    worst = max(ballot)
    return frozenset([cause for cause, vote in zip(_CAUSES, ballot, strict=True) if vote == worst != _CALM])
