"""The section on privacy of a run's page: what each site has spent, as a table and by round."""

from typing import Any

from common.results import Round, Summary
from server import figures
from server.figures.privacy import epsilon_words, last_reports, private, spent
from server.figures.style import marks, site_names
from server.incidents import SPENT
from server.report import privacy_words
from server.report.round_tables import by_round
from server.report.shell import Charts
from server.report.tables import NOTHING, Table
from server.report.words import count, rounds_done


def privacy_section(charts: Charts, summary: Summary) -> dict[str, Any] | None:
    """None where nothing trained privately and the coordinator added no noise."""
    hospital = privacy_words.hospital_sentence(summary)
    if not private(summary) and not hospital:
        return None
    sentence = privacy_words.spent_sentence(summary)
    chart = charts.add(
        "Epsilon spent by round and site",
        f"Line chart of the epsilon that each site has spent by each round, one line a site. {sentence}",
        figures.epsilon_spent(summary),
        epsilon_table(summary),
    )
    reported = last_reports(summary)
    return {
        "private": private(summary),
        "sentences": [sentence, *filter(None, [privacy_words.silent_sentence(summary)])],
        "how_to_read": privacy_words.how_to_read(summary),
        "hospital": hospital,
        "table": spent_table(summary),
        "chart": chart,
        "legend": {name: (name, mark) for name, mark in marks(site_names(summary)).items() if name in reported},
    }


def spent_table(summary: Summary) -> Table:
    """A row a site."""
    reported, last = spent(summary), last_reports(summary)
    done = rounds_done(summary)
    cap = "none" if summary.epsilon_cap is None else f"{summary.epsilon_cap:g}"
    columns = ["site", "epsilon spent", "cap", "delta", "trained on", "noise multiplier", "sampling rate"]
    columns += ["steps so far", "rounds returned", "rounds left"]
    rows = []
    for site in site_names(summary):
        report = last.get(site)
        if report is None:
            rows.append([site, *[NOTHING] * (len(columns) - 3), f"0 of {done}", f"{summary.planned_rounds:,}"])
            continue
        rows.append(
            [
                site,
                epsilon_words(report.epsilon),
                cap,
                f"{report.delta:g}",
                count(report.units, report.unit),
                f"{report.noise_multiplier:g}",
                f"{report.sample_rate:.4g}",
                f"{sum(of_round.steps for of_round in reported[site].values()):,}",
                f"{len(reported[site]):,} of {done:,}",
                _left(summary, site, len(reported[site])),
            ]
        )
    caption = "What each site has spent, as its ledger last said; steps are of the rounds that it returned from"
    return Table(caption, columns, rows)


def _left(summary: Summary, site: str, returned: int) -> str:
    """Rounds for which the plan's budget still stands: a site's noise is made for all that are planned."""
    last = next((did for one in reversed(summary.rounds) for did in one.sites if did.site == site), None)
    if last is not None and last.code == SPENT:
        return "0, its budget is spent"
    return f"{max(0, summary.planned_rounds - returned):,}"


def epsilon_table(summary: Summary) -> Table:
    """The data of the chart."""

    def epsilons(round_: Round) -> dict[str, str]:
        return {site.site: epsilon_words(site.privacy.epsilon) for site in round_.sites if site.privacy is not None}

    cap = "" if summary.epsilon_cap is None else f"; the cap is {summary.epsilon_cap:g}"
    return by_round(summary, f"Epsilon spent so far{cap}", epsilons)
