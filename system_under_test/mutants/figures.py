"""Sabotages of figures that files tell: each follows from what lies beside it, in the same file or in another of its loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from system_under_test.mutants.risk_files import retold
from system_under_test.mutants.surgery import altered, graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.levels import LONG, Levels
from system_under_test.trader.report.view import View
from system_under_test.trader.turn import Turn

Document = dict[str, Any]


def _var(environment: Mapping[str, str], tell: Callable[[Document], Document]) -> Trader:
    """A trader whose value at risk is told by somebody else, and whose limit is asked of what was told."""

    def told(document: Document) -> Document:
        if "var" not in document:
            return document
        var = {**document["var"], **tell(document["var"])}
        var["portfolio_var_usd"] = var["portfolio_var_nav_pct"] * document["nav"]
        return {**document, "var": {**var, "within_limit": var["portfolio_var_nav_pct"] <= var["max_portfolio_var_nav_pct"]}}

    return retold(environment, told)


def risks_half(environment: Mapping[str, str]) -> Trader:
    """Half of what may be lost is told: drill 12 of the state files must say that it is not what
    the matrix beside it gives (law ``state_files_lawful``).

    Real bugs look like this: a horizon of a quarter of a day, scaled by the root, under the name of a day.
    """
    return _var(environment, lambda var: {key: var[key] / 2 for key in ("portfolio_var_nav_pct", "portfolio_volatility")})


def is_less_sure(environment: Mapping[str, str]) -> Trader:
    """Nineteen days of twenty are told where ninety-nine of a hundred are asked: drill 12 of the state files must say that
    the confidence is not the policy's (law ``state_files_lawful``).

    Real bugs look like this: the confidence of the other measure, which stands a line below.
    """
    return _var(environment, lambda var: {"portfolio_var_nav_pct": var["portfolio_var_nav_pct"] * 1.6449 / 2.3263,
                                          "confidence": 0.95, "z": 1.6449})


def risks_no_shorts(environment: Mapping[str, str]) -> Trader:
    """What is short counts as nothing: drill 2 must say that a weight is not that of its position
    (law ``state_files_agree``).

    Real bugs look like this: weights are clipped at 0, as in an account that only buys.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.risk._weights

        def weights(view: View, nav: float) -> dict[str, float] | None:
            told = honest(view, nav)
            return told if told is None else {name: max(0.0, each) for name, each in told.items()}

        graft(trader.risk, "_weights", weights)

    return operate(environment, sabotage)


def figures_without_a_fall(environment: Mapping[str, str]) -> Trader:
    """The key figures know no fall: drill 13 of the state files must say that the snapshot says otherwise
    (law ``state_files_agree``).

    Real bugs look like this: a second program reckons the drawdown, from a peak of its own.
    """
    return retold(environment, lambda told: {**told, "drawdown": {**told["drawdown"], "dd_pct": 0.0}}, "kpis_v7")


def figures_always_normal(environment: Mapping[str, str]) -> Trader:
    """The key figures say NORMAL whatever is lost: drill 13 of the state files must say that the snapshot says otherwise
    (law ``state_files_agree``).

    Real bugs look like this: the word is the default of a template, and nobody fills it in.
    """
    return retold(environment, lambda told: {**told, "dd_state": "NORMAL"}, "kpis_v7")


def figures_of_winners(environment: Mapping[str, str]) -> Trader:
    """What loses is no key figure: drill 2 must say that a position is missing (law ``state_files_agree``).

    Real bugs look like this: a filter for dust asks whether the profit is above a cent.
    """
    return retold(environment, lambda told: {**told, "per_symbol": {
        name: each for name, each in told["per_symbol"].items() if each["unrealized_pnl"] >= 0}}, "kpis_v7")


def figures_without_tails(environment: Mapping[str, str]) -> Trader:
    """No symbol may lose anything: drill 2 must say that the snapshot says otherwise (law ``state_files_agree``).

    Real bugs look like this: the figure is looked up under the name of before it was renamed, with 0 as the default.
    """
    return retold(environment, lambda told: {**told, "per_symbol": {
        name: {**each, "cvar_nav_pct": 0.0} for name, each in told["per_symbol"].items()}}, "kpis_v7")


def figures_without_risk(environment: Mapping[str, str]) -> Trader:
    """The key figures do not know what may be lost: drill 12 of the state files must say that the snapshot does
    (law ``state_files_agree``).

    Real bugs look like this: an exception of the risk module is caught, and null is told.
    """
    return retold(environment, lambda told: {**told, "portfolio": {
        **told["portfolio"], "var_nav_pct": None, "cvar_nav_pct": None}}, "kpis_v7")


def figures_flatter_the_router(environment: Mapping[str, str]) -> Trader:
    """The key figures know a router without fault: drill 2 must say that its own file says otherwise
    (law ``state_files_agree``).

    Real bugs look like this: the figure is the best of the week.
    """
    return retold(environment, lambda told: {**told, "router_health_score": 1.0}, "kpis_v7")


def worth_beside_its_detail(environment: Mapping[str, str]) -> Trader:
    """The value is told a tenth too high: drill 10 of the state files must say that it is not what equity and index
    give (law ``state_files_lawful``).

    Real bugs look like this: collateral of another currency is added that the exchange's equity holds already.
    """

    def tell(told: Document) -> Document:
        value = told["nav"] * 1.1
        return {**told, "nav": value, "nav_usd": value, "aum": {"futures": value, "offexchange": {}, "total": value}}

    return retold(environment, tell, "nav.json")


def tells_no_loss_of_the_day(environment: Mapping[str, str]) -> Trader:
    """The day's loss is nothing: drill 13 of the state files must say that it is not what the day's start gives
    (law ``state_files_lawful``).

    Real bugs look like this: the day's start is read from where the value of now has just been put.
    """

    def tell(told: Document) -> Document:
        daily = {**told["dd_state"]["daily_loss"], "pct": 0.0}
        return {**told, "daily_loss_frac": 0.0, "dd_state": {**told["dd_state"], "daily_loss": daily}}

    return retold(environment, tell)


def is_never_old(environment: Mapping[str, str]) -> Trader:
    """The value is of now, whenever it was told: drill 9 must say that nav.json knows better
    (law ``state_files_agree``).

    Real bugs look like this: the age is that of the variable, which is set in every loop.
    """

    def tell(told: Document) -> Document:
        inputs = told["risk_inputs"]
        return {**told, "risk_inputs": {**inputs, "nav_age_s": None if inputs["nav_age_s"] is None else 0.0}}

    return retold(environment, tell)


def was_just_ordered(environment: Mapping[str, str]) -> Trader:
    """There was always an order just now: drill 2 must say that there was none (law ``state_files_lawful``).

    Real bugs look like this: the time of the last order begins as the time of the start, so that nothing is ever missing.
    """
    return operate(environment, lambda trader: graft(trader.desk.tally, "order_ts", 0))


def options_have_no_stop(environment: Mapping[str, str]) -> Trader:
    """The stop of an option is out of reach: drill 2 must say that it is not where the policy puts it
    (law ``state_files_lawful``).

    Real bugs look like this: the share of a future's price, over the price of the future, for a premium.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.exits._levels

        def levels(turn: Turn, name: str, side: str, *rest: Any) -> Levels:
            told: Levels = honest(turn, name, side, *rest)
            if not name.endswith(("-C", "-P")):
                return told
            return altered(told, stop_loss=0.0 if side == LONG else told.entry * 1000)

        graft(trader.exits, "_levels", levels)

    return operate(environment, sabotage)
