"""What a coordinator asks of a study beside its losses: what each site contributed, what the time went on, who approved
the plan, and what went wrong."""

from dataclasses import dataclass
from statistics import median

from common.results import Round, SiteRound, Summary
from server import incidents
from server.report.tables import NOTHING, WITHHELD, Table
from server.report.words import duration, size


def contribution_table(summary: Summary) -> Table:
    """A row a site: what it brings, its share of the average, and whether its updates point where the others' do."""
    rows, of = [], _by_site(summary)
    for site in summary.sites:
        did = [one for _, one in of.get(site.name, []) if one.state == "returned"]
        last = did[-1] if did else None
        used = site.whole + site.shortened
        rows.append(
            [
                site.name,
                WITHHELD if _withholds(site.units, site.train) else f"{used:,} of {site.train:,}",
                WITHHELD if _withholds(site.units, site.train) else f"{site.too_short:,}",
                f"{len(did):,} of {_done(summary):,}",
                _share(last.weight if last else None),
                _number(median(norms) if (norms := _values(did, "update_norm")) else None, "{:.4g}"),
                _number(median(cosines) if (cosines := _values(did, "cosine")) else None, "{:+.2f}"),
            ]
        )
    columns = ["site", "notes used", "too short", "rounds returned", "weight", "change (L2 norm)", "cosine to the mean"]
    caption = "What each site contributed; weight is of its last round, norm and cosine are medians over rounds"
    return Table(caption, columns, rows)


def time_table(summary: Summary) -> Table:
    """A row a site: its training, its waiting for others, and its bytes, over all rounds."""
    rows, of = [], _by_site(summary)
    for site in summary.sites:
        did = [one for _, one in of.get(site.name, [])]
        private = any(one.privacy for one in did)
        training = sum(one.seconds for one in did)
        waited = sum(round_.seconds - one.seconds for round_, one in of.get(site.name, []))
        rows.append(
            [
                site.name,
                WITHHELD if private else duration(training),
                WITHHELD if private else duration(max(0.0, waited)),
                size(sum(one.bytes_down for one in did)),
                size(sum(one.bytes_up for one in did)),
            ]
        )
    columns = ["site", "training", "not training", "down", "up"]
    return Table("Time and bytes of each site over all rounds", columns, rows)


def slowest_sentence(summary: Summary) -> str:
    """What the site that trains longest costs the others; empty where nothing can be said."""
    costs: dict[str, float] = {}
    for round_ in summary.rounds:
        times = sorted(((one.seconds, one.site) for one in round_.sites if one.seconds), reverse=True)
        if len(times) > 1:
            (slowest, name), (second, _) = times[:2]
            costs[name] = costs.get(name, 0.0) + slowest - second
    if not costs or ((most := max(costs, key=lambda name: costs[name])) and costs[most] < 1.0):
        return ""
    total = sum(round_.seconds for round_ in summary.rounds)
    share = f", {costs[most] / total:.0%} of the study's rounds" if total else ""
    return f"{most} trains longest: without it rounds would have ended {duration(costs[most])} earlier in all{share}."


def governance_table(summary: Summary) -> Table:
    """A row a site: who approved the plan there, and when."""
    rows = [
        [
            site.name,
            site.approved_by or ("name withheld" if site.approval else "nobody: its policy asks for no approval"),
            site.approved_at or NOTHING,
            site.approval[:12] or NOTHING,
        ]
        for site in summary.sites
    ]
    caption = (
        f"Who approved the plan {summary.plan_hash[:12]} at each site; the digest is of the entry in its own chain"
    )
    return Table(caption, ["site", "approved by", "at", "digest"], rows, frozenset({0, 1, 2, 3}))


@dataclass(frozen=True)
class Incident:
    """What went wrong at a site, in the rounds in which it did; `rounds` is "" before the first."""

    site: str
    rounds: str
    sentence: str
    next_step: str
    code: str


def incident_list(summary: Summary) -> list[Incident]:
    """Incidents of rounds, those of one site and code together, in the order in which they began."""
    found: dict[tuple[str, str], list[int]] = {}
    for round_ in summary.rounds:
        for one in round_.sites:
            if one.code:
                found.setdefault((one.site, one.code), []).append(round_.number)
    return [
        Incident(site, _rounds(numbers), incidents.sentence(site, code), incidents.next_step(code), code)
        for (site, code), numbers in found.items()
    ]


def _rounds(numbers: list[int]) -> str:
    """`round 3`, `rounds 3 to 5, 9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"{'round' if len(numbers) == 1 else 'rounds'} {', '.join(parts)}"


def _by_site(summary: Summary) -> dict[str, list[tuple[Round, SiteRound]]]:
    found: dict[str, list[tuple[Round, SiteRound]]] = {}
    for round_ in summary.rounds:
        for one in round_.sites:
            found.setdefault(one.site, []).append((round_, one))
    return found


def _done(summary: Summary) -> int:
    return sum(1 for round_ in summary.rounds if round_.number > 0)


def _withholds(units: int | None, train: int) -> bool:
    """A site with private training says how many units train, and of notes nothing."""
    return units is not None and train == 0


def _values(did: list[SiteRound], name: str) -> list[float]:
    return [value for one in did if (value := getattr(one, name)) is not None]


def _share(weight: float | None) -> str:
    return NOTHING if weight is None else f"{weight:.1%}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value).replace("-", "−")
