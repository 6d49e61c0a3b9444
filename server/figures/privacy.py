"""What each site has spent of its privacy budget: epsilon by round and site, and the plan's cap."""

import math

import plotly.graph_objects as go

from common.results import NO_DP, PrivacySpent, Summary
from server.figures.round_lines import Point, round_lines
from server.figures.style import AXIS


def private(summary: Summary) -> bool:
    """Whether the plan has the sites train privately."""
    return summary.privacy != NO_DP


def spent(summary: Summary) -> dict[str, dict[int, PrivacySpent]]:
    """By site and round, what the site's ledger said after the round."""
    found: dict[str, dict[int, PrivacySpent]] = {}
    for round_ in summary.rounds:
        for site in round_.sites:
            if site.privacy is not None:
                found.setdefault(site.site, {})[round_.number] = site.privacy
    return found


def last_reports(summary: Summary) -> dict[str, PrivacySpent]:
    """By site, its ledger as it last said."""
    return {site: reports[max(reports)] for site, reports in spent(summary).items()}


def unit(summary: Summary) -> str:
    """What is protected, "patient" or "note"; where no site has said it yet, "unit"."""
    return next((report.unit for report in last_reports(summary).values()), "unit")


def epsilon_words(epsilon: float) -> str:
    """Two decimals, rounded up: no page says that less was spent than was."""
    return f"{math.ceil(round(epsilon * 100, 6)) / 100:.2f}"


def epsilon_spent(summary: Summary) -> go.Figure:
    """One line a site; a dashed line is the plan's cap, where it has one."""
    points: dict[str, dict[int, Point]] = {
        site: {
            number: (report.epsilon, f"epsilon {epsilon_words(report.epsilon)} at delta {report.delta:g}")
            for number, report in reports.items()
        }
        for site, reports in spent(summary).items()
    }
    cap = summary.epsilon_cap
    drawn = round_lines(summary, points, "epsilon spent so far", 320)
    # Plotly would leave the cap out of the axis
    most = max([value for line in points.values() for value, _ in line.values()] + [cap or 0.0], default=0.0)
    drawn.update_yaxes(range=[0, 1.12 * (most or 1.0)])
    if cap is not None and points:
        drawn.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=cap, y1=cap, line={"color": AXIS, "dash": "dash", "width": 1.5}
        )
        drawn.add_annotation(
            xref="paper", x=0, y=cap, text=f"cap {cap:g}", showarrow=False, xanchor="left", yanchor="bottom"
        )
    return drawn
