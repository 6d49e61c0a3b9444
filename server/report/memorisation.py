"""What the memorisation check of a run found, in words and as a table: for the report and for the model's card."""

import math

from common.results import Memorisation, Summary
from server.figures.style import interval
from server.report.tables import NOTHING, Table
from server.report.words import count, listed

NOT_MADE = "No memorisation check was made: nothing is known of what the encoder has learnt by heart."
HOW_TO_READ = (
    "A canary is a synthetic note with a secret of six digits. Its exposure says by how many bits the secret ranks "
    "above others when the encoder is asked for it: 1.4 on average by chance, 19.9 for the likeliest of all million. "
    "Canaries that were trained on are compared with others that were held back: an AUC of 0.5 is no difference. "
    "Identifiers (dates, long numbers) are masked in notes that were trained on and in held-out ones: a difference "
    "above zero says that the encoder knows its training notes better. Each interval stands alone: of twenty "
    "differences that are truly nothing, about one will look clear. The check finds what it asks for; that it finds "
    "nothing is no proof that there is nothing to find. A dash: not asked, or too few patients (20) behind a figure, "
    "or a figure that no epsilon covers."
)


def memorisation_sentences(summary: Summary) -> list[str]:
    """What a reader should know first."""
    found = summary.memorisation
    if not found:
        return [NOT_MADE]
    made = [one for one in found if one.canaries or one.identifiers]
    sentences = [f"After the last round {len(made)} of {count(len(found), 'site')} asked the encoder."]
    known = [sentence for one in made if (sentence := _exposed(one))]
    sentences += known
    if made and not known:
        sentences.append("At no site did the encoder clearly know what it was trained on better than what it was not.")
    if refusing := [one for one in found if one.veto]:
        verb = "refuses" if len(refusing) == 1 else "refuse"
        codes = listed(sorted({one.veto for one in refusing}))
        sentences.append(f"{listed([one.site for one in refusing])} {verb} the release ({codes}): it is not exported.")
    return sentences


def memorisation_table(summary: Summary) -> Table:
    """A row a site."""
    columns = ["site", "canaries trained on / held back", "exposure: mean (highest)", "highest by chance"]
    columns += ["of those held back", "AUC", "notes with identifiers: trained on / held out"]
    columns += ["completed: difference", "log-likelihood a token: difference", "what the site says"]
    rows = [[one.site, *_canaries(one), *_identifiers(one), _says(one)] for one in summary.memorisation]
    caption = "Memorisation check after the last round, with 95 % intervals"
    return Table(caption, columns, rows, frozenset({0, len(columns) - 1}))


def highest_by_chance(canaries: int) -> float:
    """The highest exposure, on average, of so many canaries that nobody was trained on, in bits."""
    return sum(1 / k for k in range(1, canaries + 1)) / math.log(2)


def _canaries(one: Memorisation) -> list[str]:
    found = one.canaries
    if found is None:
        return [NOTHING] * 5
    return [
        f"{found.planted} x {found.repeats} / {found.controls}",
        f"{found.planted_mean:.1f} ({found.planted_max:.1f})",
        f"{highest_by_chance(found.planted):.1f}",
        f"{found.controls_mean:.1f}",
        interval(found.auc, 2),
    ]


def _identifiers(one: Memorisation) -> list[str]:
    found = one.identifiers
    if found is None:
        return [NOTHING] * 3
    return [
        f"{found.train_notes:,} / {found.held_out_notes:,}",
        interval(found.completed, signed=True),
        interval(found.likelihood, signed=True),
    ]


def _says(one: Memorisation) -> str:
    if one.veto:
        return f"refuses the release: {one.veto}"
    return one.reason or "no objection"


def _exposed(one: Memorisation) -> str:
    """What the encoder clearly knows better for having been trained on it; "" where there is nothing."""
    what, (canaries, identifiers) = [], (one.canaries, one.identifiers)
    if canaries and canaries.auc.low is not None and canaries.auc.low > 0.5:
        bits = f"{canaries.planted_mean:.1f} bits, held back {canaries.controls_mean:.1f}"
        what.append(f"the canaries that it was trained on (exposure {bits})")
    if identifiers and identifiers.likelihood.low is not None and identifiers.likelihood.low > 0:
        more = f"{identifiers.likelihood.value:+.2f} nats a token"
        what.append(f"identifiers in the notes that it was trained on ({more})")
    return f"At {one.site} the encoder knows {listed(what)} better than others." if what else ""
