"""What a run spent of its privacy budget, and what that covers and does not, in plain words."""

from common.results import NO_DP, Summary
from common.table import Table
from server.figures.privacy import epsilon_words, last_reports, private, spent, unit
from server.figures.round_space import released
from server.report.tables import counts_withheld
from server.report.words import capitalised, count, listed, rounds_done


def spent_words(summary: Summary) -> str:
    """`each patient, epsilon 7.91 to 7.98 spent of 8 at delta 1e-05 over 4 sites`."""
    reports = last_reports(summary).values()
    if not reports:
        return "no site has said yet what it spent"
    least, most = (epsilon_words(extreme(report.epsilon for report in reports)) for extreme in (min, max))
    used = least if least == most else f"{least} to {most}"
    cap = "without a cap" if summary.epsilon_cap is None else f"of {summary.epsilon_cap:g}"
    delta = max(report.delta for report in reports)
    return f"each {unit(summary)}, epsilon {used} spent {cap} at delta {delta:g} over {count(len(reports), 'site')}"


def spent_sentence(summary: Summary) -> str:
    words = spent_words(summary)
    return f"For {words}." if last_reports(summary) else f"{capitalised(words)}."


def small_print(summary: Summary, mapped: bool = False) -> list[str]:
    """What the guarantee of a private run covers, and what on the page it does not; `mapped`: there is a map of notes.

    Nothing where there is no differential privacy at all.
    """
    hospital = hospital_sentence(summary)
    if not private(summary):
        if not hospital:
            return []
        return [
            "No differential privacy at the sites: nothing bounds what their updates may reveal to the coordinator.",
            hospital,
        ]
    one = unit(summary)
    shown = [
        *(["scores"] if summary.scores else []),
        *(["held-out losses"] if any(round_.held_out for round_ in summary.rounds) else []),
        *(["figures of the embedding space"] if released(summary) else []),
        *(["map of the embedding space"] if mapped else []),
    ]
    if summary.engine != "servers" or not all(counts_withheld(site) for site in summary.sites):
        shown.append("counts of notes")
    sentences = [
        spent_sentence(summary),
        f"The guarantee is for each {one} that a site trains on, in what the site sends in training and so in the "
        "encoder. It covers neither what a site itself does with its notes nor the scores in this report.",
    ]
    if shown:
        simulated = "This run is a simulation on one machine: its"
        whose = simulated if summary.engine != "servers" else "By their policies sites released more:"
        computed = "were computed on the notes themselves, without noise, and epsilon does not cover them."
        sentences.append(f"{whose} {listed(shown)} {computed}")
    return sentences


def table_small_print(table: Table) -> list[str]:
    """The same for a table, whose every cell trains on the same notes again."""
    if table.privacy == NO_DP:
        return []
    without = f"In arms with {NO_DP} nothing bounds what updates and encoders may reveal about single notes."
    return [
        "The guarantee is for each unit (patient or note) that a site trains on, in what the site sends in training. "
        "It is that of one training: each row and each seed spends as much again on the same notes.",
        *([without] if NO_DP in table.privacy else []),
        "This table is a simulation on one machine: its scores, figures of embedding spaces and counts of notes were "
        "computed on the notes themselves, without noise, and epsilon does not cover them.",
    ]


def loss_notes(summary: Summary) -> list[str]:
    """How to read the losses of a private run."""
    reported = spent(summary)
    if not private(summary) or not reported:
        return []
    losses = [site.loss for round_ in summary.rounds for site in round_.sites if site.privacy is not None]
    held_out = any(round_.held_out for round_ in summary.rounds)
    return [
        "The training losses carry noise: they jump, and small differences between rounds and sites mean nothing."
        if any(loss is not None for loss in losses)
        else "The training loss was withheld.",
        "The held-out losses have no noise, and epsilon does not cover them."
        if held_out
        else "The held-out loss was withheld.",
    ]


def counts_note(summary: Summary) -> str:
    """Why the counts are missing, where no site's policy releases them; else ""."""
    if not summary.sites or not all(counts_withheld(site) for site in summary.sites):
        return ""
    return f"With private training a site says how many {unit(summary)}s it trains on; other counts are withheld."


def how_to_read(summary: Summary) -> str:
    one = unit(summary)
    return (
        f"Epsilon bounds how far all that a site sent in training can shift the odds that a certain {one} was among "
        "those it trained on: at most by a factor of e to the epsilon (2.7 at epsilon 1, about 3,000 at 8), but for a "
        "chance of about delta. Smaller protects more, and the bound is weak at 8 already. It is each site's own and "
        f"of this study alone: other studies on the same notes, and a {one} that is at two sites, spend more. How many "
        f"{one}s a site has, it sends as it is. docs/privacy.md, in Fednotes' documentation, says what is proved and "
        "what is not."
    )


def silent_sentence(summary: Summary) -> str:
    """Sites that may have spent more than is known, for they did not return since; "" where there are none."""
    reported, done = spent(summary), rounds_done(summary)
    sites = dict.fromkeys(site.site for round_ in summary.rounds for site in round_.sites)
    silent = [site for site in sites if max(reported.get(site, {}), default=0) < done]
    if not reported or not silent:
        return ""
    who = "its ledger knows" if len(silent) == 1 else "their ledgers know"
    return (
        f"{listed(silent)} did not return from the last round: what was spent there after the last return is not in "
        f"these figures; only {who} it."
    )


def hospital_sentence(summary: Summary) -> str:
    """The noise that the coordinator adds for whole hospitals; "" where it adds none."""
    known = [(r.number, r.hospital_epsilon) for r in summary.rounds if r.hospital_epsilon is not None]
    if not known:
        return ""
    number, epsilon = known[-1]
    return (
        f"The coordinator adds noise of its own, for whole hospitals: epsilon {epsilon_words(epsilon)} after round "
        f"{number}. That is a different promise: it bounds what the encoder tells of whether a hospital took part at "
        "all, to those who see nothing else; it binds neither the coordinator nor this report."
    )
