"""Sabotages of the risk documents: a trader that trades as it should and tells its risk wrong, or tells it right and
does not act by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from system_under_test.mutants.surgery import altered, graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.report.drawdown import DRAWDOWN, NORMAL, RECOVERY, Drawdown
from system_under_test.trader.report.view import View
from system_under_test.trader.turn import Turn

Document = dict[str, Any]


def retold(environment: Mapping[str, str], tell: Callable[[Document], Document], surface: str = "risk_snapshot") -> Trader:
    """The real trader, one of whose documents is told by somebody else."""

    def sabotage(trader: Trader) -> None:
        (each,) = [each for each in trader.publisher.surfaces if each.file.startswith(f"state/{surface}")]
        honest = each.make

        def make(turn: Turn, view: View) -> Document | None:
            told = honest(turn, view)
            return None if told is None else tell(told)

        graft(each, "make", make)

    return operate(environment, sabotage)


def compares_the_wrong_way(environment: Mapping[str, str]) -> Trader:
    """What is below its limit is told to break it, and what breaks it to be within: drill 12 of the state files
    must say that a snapshot contradicts itself (law ``state_files_lawful``).

    Real bugs look like this: *limit - value* became *value - limit* when a limit turned from dollars into a share.
    """

    def tell(told: Document) -> Document:
        if "var" not in told:
            return told
        within = told["var"]["portfolio_var_nav_pct"] >= told["var"]["max_portfolio_var_nav_pct"]
        return {**told, "var": {**told["var"], "within_limit": within}}

    return retold(environment, tell)


def never_draws_down(environment: Mapping[str, str]) -> Trader:
    """The state is NORMAL whatever is lost: drill 13 of the state files must say that a snapshot
    contradicts itself (law ``state_files_lawful``).

    Real bugs look like this: the state is computed by whoever has the history, and the writer has its own default.
    """
    return operate(environment, lambda trader: graft(trader.risk.drawdown, "_next", lambda: NORMAL))


def skips_recovery(environment: Mapping[str, str]) -> Trader:
    """Below the limit again all is well at once: drill 13 of the state files must say that no recovery was
    seen (``recovering``).

    Real bugs look like this: the state is a function of the number alone, and nobody hands it the state before.
    """

    def sabotage(trader: Trader) -> None:
        drawdown = trader.risk.drawdown
        graft(drawdown, "_next", lambda: DRAWDOWN if drawdown.broken else NORMAL)

    return operate(environment, sabotage)


def never_recovers_fully(environment: Mapping[str, str]) -> Trader:
    """Back at its peak it is in recovery still: drill 13 of the state files must say that a snapshot
    contradicts itself (law ``state_files_lawful``).

    Real bugs look like this: *at or above* compares floats of two sources, and they are never quite the same.
    """

    def sabotage(trader: Trader) -> None:
        drawdown = trader.risk.drawdown
        honest = drawdown._next
        graft(drawdown, "_next", lambda: RECOVERY if drawdown.told_state != NORMAL and honest() == NORMAL else honest())

    return operate(environment, sabotage)


def sees_no_jump(environment: Mapping[str, str]) -> Trader:
    """The snapshot before is always the one of now: drill 10 of the state files must say that no jump was
    seen (``jumped``).

    Real bugs look like this: the old value is remembered before it is compared.
    """

    def sabotage(trader: Trader) -> None:
        risk = trader.risk
        honest = risk._anomalies

        def anomalies(turn: Turn, nav: float, var: Any, cvar: Any) -> Document:
            before, risk.drawdown.told_nav = risk.drawdown.told_nav, nav
            found = honest(turn, nav, var, cvar)
            risk.drawdown.told_nav = before
            return found

        graft(risk, "_anomalies", anomalies)

    return operate(environment, sabotage)


def sees_jumps_everywhere(environment: Mapping[str, str]) -> Trader:
    """Each snapshot jumps: drill 10 of the state files must say that one is within its limits (law
    ``state_files_lawful``).

    Real bugs look like this: the limit is read in thousands.
    """

    def tell(told: Document) -> Document:
        nav = told["nav"]
        jump = {"old": nav * 0.9999, "new": nav, "pct": 0.0001 / 0.9999}
        anomalies = {"nav_jump": jump, **told["anomalies"]}
        return {**told, "anomalies": anomalies, "anomaly_codes": sorted(anomalies)}

    return retold(environment, tell)


def forgets_to_flap(environment: Mapping[str, str]) -> Trader:
    """However often the state changes, it is no anomaly: drill 14 of the state files must say that no flapping
    was seen (``flapping``).

    Real bugs look like this: the source's own: the contract names it and no code emits it.
    """
    return operate(environment, lambda trader: graft(trader.risk.drawdown, "flaps", lambda ts: False))


def sums_without_correlation(environment: Mapping[str, str]) -> Trader:
    """Assets are taken to move by themselves: drill 12 of the state files must say that coins and contracts
    were not seen to move together (``together``).

    Real bugs look like this: the diagonal is all that was needed while there was one asset.
    """

    def sabotage(trader: Trader) -> None:
        bars = trader.risk.bars
        honest = bars.covariance

        def diagonal(assets: Sequence[str]) -> list[list[float]]:
            return [[each if row == column else 0.0 for column, each in enumerate(line)]
                    for row, line in enumerate(honest(assets))]

        graft(bars, "covariance", diagonal)

    return operate(environment, sabotage)


def averages_the_best(environment: Mapping[str, str]) -> Trader:
    """The tail is taken from the wrong end, and what is gained is floored at no loss: drill 11 of the
    state files must say that the limit was not seen broken (``breached``).

    Real bugs look like this: losses are kept as positive numbers in one module and as negative ones in the next.
    """

    def sabotage(trader: Trader) -> None:
        bars = trader.risk.bars
        honest = bars.tail
        graft(bars, "tail", lambda weights, confidence: honest({name: -weight for name, weight in weights.items()}, confidence))

    return operate(environment, sabotage)


def is_fine_in_kill(environment: Mapping[str, str]) -> Trader:
    """The risk mode does not know the trading mode: drill 13 must say that the snapshot does not say it
    (law ``kill_seen_by_risk``).

    Real bugs look like this: the source's own: two processes decide, and neither reads the other's word.
    """

    def sabotage(trader: Trader) -> None:
        (each,) = [each for each in trader.publisher.surfaces if each.file == "state/risk_snapshot.json"]
        honest = each.make
        graft(each, "make", lambda turn, view: honest(turn, altered(view, mode="Active")))

    return operate(environment, sabotage)


def tells_per_cent(environment: Mapping[str, str]) -> Trader:
    """The drawdown is told in per cent where fractions are: drill 13 of the state files must say that
    a snapshot contradicts itself (law ``state_files_lawful``).

    Real bugs look like this: the source's own: its readers divide by a hundred whatever is above one.
    """

    def tell(told: Document) -> Document:
        drawdown = {**told["dd_state"]["drawdown"], "dd_pct": 100 * told["dd_frac"]}
        return {**told, "dd_state": {**told["dd_state"], "drawdown": drawdown}}

    return retold(environment, tell)


def breaks_no_circuit(environment: Mapping[str, str]) -> Trader:
    """The circuit breaker is told and opens nothing: drill 13 of the state files must say that nothing was
    refused (``refused``).

    Real bugs look like this: the risk service publishes, and the order path reads a file of last year's name.
    """
    return operate(environment, lambda trader: graft(trader.limits, "broken", lambda: False))


def forgets_the_peak(environment: Mapping[str, str]) -> Trader:
    """Each life begins at its own peak: drill 13 of the state files must say that a restart forgave the loss
    (``remembered``).

    Real bugs look like this: the high-water mark is a variable.
    """
    return operate(environment, lambda trader: graft(trader.risk, "restore", lambda files, nav: None))


def two_values_after_a_restart(environment: Mapping[str, str]) -> Trader:
    """After a restart each file goes on with the value that it told last itself: drill 13 of the state files must say that
    files of one loop disagree (``state_files_agree``).

    Real bugs look like this: every report restores itself, and the process died between two of them.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.risk.restore
        graft(trader.risk, "restore", lambda files, nav: honest(files))

    return operate(environment, sabotage)


# ---- the router ----


def loses_nothing_today(environment: Mapping[str, str]) -> Trader:
    """The loss of the day is nothing, in every file and for every limit: drill 19 of the state files must say that it was
    not told (``today``).

    Real bugs look like this: the day's first value is set with every value.
    """

    def sabotage(trader: Trader) -> None:
        drawdown = trader.risk.drawdown
        honest = drawdown.take

        def take(turn: Turn, nav: float) -> None:
            drawdown._day = None
            honest(turn, nav)

        graft(drawdown, "take", take)

    return operate(environment, sabotage)


def begins_its_day_anew(environment: Mapping[str, str]) -> Trader:
    """The day begins with the process: drill 19 of the state files must say that a restart forgave the loss of the day
    (``same_day``).

    Real bugs look like this: the day's first value is the first that this process has seen.
    """

    def forget(drawdown: Drawdown) -> None:
        drawdown._day, drawdown.day_start = None, 0.0

    return _restored(environment, forget)


def forgets_the_recovery(environment: Mapping[str, str]) -> Trader:
    """A restart ends a recovery: drill 19 of the state files must say that it is none any more (``recovering_still``).

    Real bugs look like this: the state is computed of peak and value alone, which do not know where it came from.
    """

    def forget(drawdown: Drawdown) -> None:
        if drawdown.told_state == RECOVERY:
            drawdown.state = drawdown.told_state = NORMAL

    return _restored(environment, forget)


def _restored(environment: Mapping[str, str], forget: Callable[[Drawdown], None]) -> Trader:
    """The real trader, which has forgotten something of its losses over a restart."""

    def sabotage(trader: Trader) -> None:
        honest = trader.risk.restore

        def restore(files: Mapping[str, bytes], nav: float | None = None) -> None:
            honest(files, nav)
            forget(trader.risk.drawdown)

        graft(trader.risk, "restore", restore)

    return operate(environment, sabotage)


def defends_nothing(environment: Mapping[str, str]) -> Trader:
    """No loss makes the risk mode DEFENSIVE: drill 19 of the state files must say that a snapshot contradicts itself (law
    ``state_files_lawful``).

    Real bugs look like this: thresholds as shares, compared with per cent.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.risk._first_mode

        def first(inputs: Any) -> tuple[str, str, float]:
            told = honest(inputs)
            return ("OK", "within limits", 0.0) if told[0] == "DEFENSIVE" else told

        graft(trader.risk, "_first_mode", first)

    return operate(environment, sabotage)


def answers_at_once(environment: Mapping[str, str]) -> Trader:
    """Latency is measured from the answer to the answer: drill 15 of the state files must say that slow answers
    were not seen (``noticed``).

    Real bugs look like this: the clock starts where the request is logged, and it is logged when it is over.
    """

    def sabotage(trader: Trader) -> None:
        router = trader.router
        honest = router.answered

        def answered(turn: Turn, intent_id: str) -> None:
            child = router._known.get(intent_id)
            if child is not None:
                child.ts = turn.ts
            honest(turn, intent_id)

        graft(router, "answered", answered)

    return operate(environment, sabotage)


def never_trims(environment: Mapping[str, str]) -> Trader:
    """What was slow once is slow for ever: drill 15 of the state files must say that it did not come back
    (``converge``).

    Real bugs look like this: the source's own: the window is trimmed when a fill comes, and none comes.
    """
    return operate(environment, lambda trader: graft(trader.router, "_trim", lambda ts: None))


def flatters_the_router(environment: Mapping[str, str]) -> Trader:
    """The score is that of a good day: drill 15 of the state files must say that it does not follow from its parts
    (law ``state_files_lawful``).

    Real bugs look like this: a component's default is its best value, and its name changed.
    """

    def tell(told: Document) -> Document:
        health = told["router_health"]
        return {**told, "router_health_score": 1.1,
                "router_health": {**health, "global": {**health["global"], "quality_score": 1.1}}}

    return retold(environment, tell, "router_health")
