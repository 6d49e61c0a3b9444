"""Did training work: the loss by round and site, and each of the losses that an objective adds up."""

import math

import plotly.graph_objects as go

from common.results import SiteRound, Summary
from server.figures.privacy import spent
from server.figures.round_lines import Point, round_lines
from server.figures.style import plain

# What an objective adds up: its name, and its unit.
PARTS: dict[str, tuple[str, str]] = {
    "mlm": ("Masked language modelling", "nats a masked token"),
    "contrastive": ("Contrastive", "nats"),
    "category": ("Note category", "nats a note"),
}


def held_out_loss(summary: Summary) -> go.Figure:
    """One line a site; round 0 is the base before any training. A lower loss is better."""
    points: dict[str, dict[int, Point]] = {}
    for round_ in summary.rounds:
        for site, held_out in round_.held_out.items():
            if math.isfinite(held_out.loss):
                text = f"loss {held_out.loss:.4f}<br>{held_out.notes:,} held-out notes, {held_out.tokens:,} tokens"
                points.setdefault(site, {})[round_.number] = (held_out.loss, text)
    return round_lines(summary, points, f"held-out loss ({loss_unit(summary)})")


def training_loss(summary: Summary) -> go.Figure:
    """One line a site, over the rounds from which it returned; with private training the losses have noise."""
    points: dict[str, dict[int, Point]] = {}
    for round_ in summary.rounds:
        for site in round_.sites:
            if site.state == "returned" and site.loss is not None and math.isfinite(site.loss):
                points.setdefault(site.site, {})[round_.number] = (site.loss, _on_training(site, site.loss))
    name = "training loss with noise" if spent(summary) else "training loss"
    return round_lines(summary, points, f"{name} ({loss_unit(summary)})")


def _on_training(site: SiteRound, loss: float) -> str:
    if site.privacy is not None:
        return f"loss {loss:.4f}, with noise<br>{site.steps:,} steps; notes and tokens withheld"
    return f"loss {loss:.4f}<br>{site.notes:,} notes, {site.steps:,} steps, {site.tokens:,} tokens"


def held_out_part(summary: Summary, part: str) -> go.Figure:
    """One line a site: one of the losses that the objective adds up, on held-out notes."""
    points: dict[str, dict[int, Point]] = {}
    for round_ in summary.rounds:
        for site, held_out in round_.held_out.items():
            value = held_out.parts.get(part, math.nan)
            if math.isfinite(value):
                text = f"{plain(part_name(part).lower(), 60)} {value:.4f}<br>{held_out.notes:,} held-out notes"
                points.setdefault(site, {})[round_.number] = (value, text)
    return round_lines(summary, points, part_unit(part), 280)


def loss_unit(summary: Summary) -> str:
    """Only the loss of MLM alone is by masked token; the others add up losses of several units."""
    return PARTS["mlm"][1] if summary.objective == "mlm" else "nats"


def part_names(summary: Summary) -> list[str]:
    """The parts of the held-out losses, in the order in which they are explained."""
    found = {part for round_ in summary.rounds for held_out in round_.held_out.values() for part in held_out.parts}
    return [*(part for part in PARTS if part in found), *sorted(found - PARTS.keys())]


def part_name(part: str) -> str:
    return PARTS.get(part, (part.capitalize(), ""))[0]


def part_unit(part: str) -> str:
    return PARTS.get(part, ("", "nats"))[1]
