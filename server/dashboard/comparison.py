"""Studies beside each other: what each was, what it cost, and what came of it."""

from statistics import mean

import plotly.graph_objects as go

from server.dashboard.library import Entry
from server.dashboard.live import Feed
from server.dashboard.rendering import rendered
from server.figures.privacy import epsilon_words, last_reports
from server.figures.round_lines import named_lines
from server.figures.style import marks
from server.record.reader import LiveSummary, StudyRecord, beat, read_study, version
from server.report.shell import Charts
from server.report.tables import NOTHING, Table
from server.report.words import duration, rounds_done, size


class Comparison:
    """The page's source."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def feed(self) -> Feed:
        return Feed(
            repr([(version(one.database, one.study), beat(one.database, one.study)[1]) for one in self._entries])
        )

    def sections(self) -> dict[str, str]:
        records = {one.key: read_study(one.database, one.study) for one in self._entries}
        charts = Charts("compare")
        table = comparison_table(list(records.values()))
        chart = charts.add(
            "Held-out loss by round",
            "Line chart: the mean of the sites' held-out losses by round, one line a study. The table below holds it.",
            _losses(records),
            _loss_table(records),
        )
        names = {name: (name, mark) for name, mark in marks(list(_names(records).values())).items()}
        found = rendered("comparison.html", charts, table=table, chart=chart, names=names, records=records)
        return {"comparison": found}


def comparison_table(records: list[StudyRecord]) -> Table:
    """A row a study. Losses are means over sites, of the base and of the last round."""
    rows = []
    for record in records:
        summary = record.summary()
        losses = list(_by_round(record).values())
        moved = sum(one.bytes_down + one.bytes_up for done in summary.rounds for one in done.sites)
        spent = [report.epsilon for report in last_reports(summary).values()]
        rows.append(
            [
                summary.study,
                record.started.strftime("%Y-%m-%d %H:%M"),
                record.state,
                summary.objective,
                summary.privacy,
                epsilon_words(max(spent)) if spent else NOTHING,
                f"{rounds_done(summary)} of {summary.planned_rounds}",
                f"{len(summary.sites)}",
                f"{losses[0]:.3f} → {losses[-1]:.3f}" if len(losses) > 1 else NOTHING,
                _verdicts(summary, "base"),
                _verdicts(summary, "local-only"),
                duration(summary.seconds),
                size(moved),
            ]
        )
    columns = ["study", "started (UTC)", "state", "objective", "privacy", "most epsilon spent", "rounds", "sites"]
    columns += ["held-out loss", "better than its base", "better than local-only", "time", "weights moved"]
    return Table("Studies beside each other", columns, rows, frozenset({0, 1, 2, 3, 4}))


def _verdicts(summary: LiveSummary, against: str) -> str:
    found = [one.verdict for one in summary.comparisons if one.against == against and one.mode == "frozen"]
    if not found:
        return "not measured"
    return f"{found.count('better')} of {len(found)}, worse {found.count('worse')}"


def _by_round(record: StudyRecord) -> dict[int, float]:
    """Round -> mean held-out loss over the sites that measured it."""
    return {
        one.number: mean(held_out.loss for held_out in one.held_out.values()) for one in record.rounds if one.held_out
    }


def _names(records: dict[str, StudyRecord]) -> dict[str, str]:
    """Key -> a name that tells studies of one name apart."""
    names = [record.plan.study.name for record in records.values()]
    return {
        key: record.plan.study.name if names.count(record.plan.study.name) == 1 else f"{record.plan.study.name} ({key})"
        for key, record in records.items()
    }


def _losses(records: dict[str, StudyRecord]) -> go.Figure:
    names = _names(records)
    points = {
        names[key]: {number: (loss, f"mean held-out loss {loss:.4f}") for number, loss in _by_round(record).items()}
        for key, record in records.items()
    }
    return named_lines(list(points), {name: line for name, line in points.items() if line}, "mean held-out loss, nats")


def _loss_table(records: dict[str, StudyRecord]) -> Table:
    names, losses = _names(records), {key: _by_round(record) for key, record in records.items()}
    numbers = sorted({number for of in losses.values() for number in of})
    rows = [
        [str(number), *(f"{of[number]:.4f}" if number in of else NOTHING for of in losses.values())]
        for number in numbers
    ]
    return Table("Mean held-out loss by round", ["round", *(names[key] for key in losses)], rows)
