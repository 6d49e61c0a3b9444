"""The report of a private run: what was spent, what that covers, and what a site withheld."""

import json
import re
from typing import Any

import numpy as np
import pytest
from example_private import UNITS, private_summary
from example_summary import SITES, example_map, example_summary
from example_table import example_table
from page_tags import HOSTILE, Tags, without_plotly

from common.results import NO_DP, SiteRound, Summary
from common.table import Consumed
from server import figures
from server.figures.privacy import epsilon_words
from server.figures.rows import Rows
from server.report import render, render_table
from server.report.privacy_section import epsilon_table, spent_table
from server.report.privacy_words import loss_notes, silent_sentence, small_print, spent_words
from server.report.round_tables import ladder, rounds_table, training_table
from server.report.table_data import consumed_table
from server.report.tables import sites_table
from server.report.words import loss_sentence

GUARANTEE = "differential privacy for each patient: epsilon at most 8 at delta 1e-05"


def in_sight(page: str) -> str:
    """The page without what is folded away or read by scripts."""
    page = re.sub(r"<details>.*?</details>", "", without_plotly(page), flags=re.DOTALL)
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', without_plotly(page), flags=re.DOTALL)
    return found[0] if found else ""


def changed(summary: Summary, number: int, **update: Any) -> Summary:
    """With another round of that number."""
    rounds = [r.model_copy(update=update) if r.number == number else r for r in summary.rounds]
    return summary.model_copy(update={"rounds": rounds})


def test_unit_epsilon_cap_and_delta_are_under_the_title() -> None:
    head = re.search(r"<header>.*?</header>", without_plotly(render(private_summary())), flags=re.DOTALL)
    assert head is not None
    assert f'<span class="badge dp">{GUARANTEE}</span>' in head[0]
    assert "For each patient, epsilon 7.83 to 7.98 spent of 8 at delta 1e-05 over 4 sites." in head[0]
    assert "The guarantee is for each patient that a site trains on, in what the site sends in training" in head[0]
    assert "It covers neither what a site itself does with its notes nor the scores in this report." in head[0]
    assert NO_DP not in head[0].lower()


def test_what_a_simulation_computes_on_the_notes_is_named_as_not_covered() -> None:
    def not_covered(summary: Summary, mapped: bool = False) -> str:
        return small_print(summary, mapped)[-1]

    assert "its scores, held-out losses and counts of notes were computed" in not_covered(private_summary())
    assert not_covered(private_summary()).endswith("epsilon does not cover them.")
    bare = private_summary(released=False)
    assert "its scores and counts of notes were computed" in not_covered(bare)
    assert "map of the embedding space" in not_covered(bare, mapped=True)
    assert "scores" not in not_covered(bare.model_copy(update={"scores": []}))
    assert "map of the embedding space and counts of notes were" in in_sight(render(bare, example_map()))
    assert "computed on the notes themselves" not in in_sight(render(example_summary()))


def test_a_run_without_privacy_says_so_as_ever_and_has_no_section() -> None:
    page = render(example_summary())
    assert "No differential privacy: nothing bounds what the sites' updates, and the encoder" in in_sight(page)
    assert section(page, "privacy") == "" and 'href="#privacy"' not in page
    assert "with noise" not in without_plotly(page) and "withheld" not in without_plotly(page)


def test_the_section_has_a_row_a_site_and_says_how_to_read_it() -> None:
    summary = private_summary()
    table = spent_table(summary)
    steps = sum(site.steps for round_ in summary.rounds for site in round_.sites if site.site == SITES[2])
    row = ["Harbour Clinic", "7.88", "8", "1e-05", "287 patients", "0.98", "0.05575", f"{steps}", "6 of 8", "2"]
    assert table.rows[2] == row and len(table.rows) == len(SITES)
    found = section(render(summary), "privacy")
    assert all(f"<td>{cell}</td>" in found for cell in row[1:])
    assert "docs/privacy.md" in found and "a factor of e to the epsilon" in found
    assert 'href="#privacy"' in render(summary)
    assert [line[2] for line in spent_table(private_summary(cap=None)).rows] == ["none"] * 4


def test_epsilon_is_drawn_by_round_and_site_under_the_cap() -> None:
    summary = private_summary()
    figure = figures.epsilon_spent(summary)
    assert [trace.legendgroup for trace in figure.data] == SITES
    spent = [r.sites[0].privacy.epsilon for r in summary.rounds[1:] if r.sites[0].privacy]
    assert list(figure.data[0].y) == spent and list(figure.data[0].x) == list(range(1, 9))
    # a round from which a site did not return is a gap
    assert np.isnan(figure.data[2].y).tolist() == [False, False, True, False, False, False, True, False]
    assert [(line.y0, line.y1, line.line.dash) for line in figure.layout.shapes] == [(8.0, 8.0, "dash")]
    low, high = figure.layout.yaxis.range
    assert low == 0 and high > 8
    # a site keeps its colour
    assert figure.data[3].line.color == figures.held_out_loss(summary).data[3].line.color
    assert not figures.epsilon_spent(private_summary(cap=None)).layout.shapes
    assert not figures.epsilon_spent(example_summary()).data
    rows = epsilon_table(summary).rows
    assert [row[0] for row in rows] == [str(number) for number in range(1, 9)]
    assert rows[2][3] == "–" and rows[7][1:] == ["7.98", "7.93", "7.88", "7.83"]


@pytest.mark.parametrize(("epsilon", "words"), [(7.981, "7.99"), (8.2, "8.20"), (0.0001, "0.01"), (3.0, "3.00")])
def test_epsilon_is_never_rounded_down(epsilon: float, words: str) -> None:
    assert epsilon_words(epsilon) == words


def test_what_was_spent_in_one_line() -> None:
    words = "each patient, epsilon 7.83 to 7.98 spent of 8 at delta 1e-05 over 4 sites"
    assert spent_words(private_summary()) == words
    assert "spent without a cap at" in spent_words(private_summary(cap=None))
    assert spent_words(private_summary(unit="note")).startswith("each note, ")
    summary = private_summary()
    alone = [r.model_copy(update={"sites": [s for s in r.sites if s.site == SITES[0]]}) for r in summary.rounds]
    alone_words = spent_words(summary.model_copy(update={"rounds": alone}))
    assert alone_words == "each patient, epsilon 7.98 spent of 8 at delta 1e-05 over 1 site"
    assert spent_words(summary.model_copy(update={"rounds": []})) == "no site has said yet what it spent"


def test_a_site_that_may_have_spent_more_is_named() -> None:
    assert silent_sentence(private_summary()) == ""
    # round 7 is one that Harbour Clinic did not return from
    assert silent_sentence(private_summary(rounds=7)).startswith("Harbour Clinic did not return from the last round")
    assert "Harbour Clinic did not return" in section(render(private_summary(rounds=7)), "privacy")
    summary = private_summary(rounds=2)
    gone = [SiteRound(site=site.site, state="left-out", reason="late") for site in summary.rounds[2].sites[:2]]
    both = changed(summary, 2, sites=[*gone, *summary.rounds[2].sites[2:]])
    assert silent_sentence(both).startswith("Northgate General and St Brigid's did not return")


def test_the_training_loss_has_noise() -> None:
    figure = figures.training_loss(private_summary())
    assert figure.layout.yaxis.title.text == "training loss with noise (nats a masked token)"
    assert figure.data[0].hovertext[0].endswith("with noise<br>60 steps; notes and tokens withheld")
    page = in_sight(render(private_summary()))
    assert "Training loss with noise by round and site" in page
    assert "The training losses carry noise" in page
    assert "The held-out losses have no noise, and epsilon does not cover them." in page
    assert "noise" not in figures.training_loss(example_summary()).layout.yaxis.title.text


def test_losses_that_were_withheld_are_no_gaps_and_no_zeros() -> None:
    summary = private_summary(released=False, losses=False)
    assert not figures.training_loss(summary).data and not figures.held_out_loss(summary).data
    assert loss_sentence(summary) == "The held-out loss was withheld."
    assert loss_notes(summary) == ["The training loss was withheld.", "The held-out loss was withheld."]
    assert "The training loss was withheld. The held-out loss was withheld." in section(render(summary), "training")
    # without a held-out loss of every round it was not measured, and not withheld
    assert "not measured" in loss_sentence(changed(private_summary(), 0, held_out={}))
    assert "not measured" in loss_sentence(summary.model_copy(update={"rounds": []}))
    assert "not measured" in loss_sentence(summary.model_copy(update={"privacy": NO_DP}))
    assert dict(zip(rounds_table(summary).columns, rounds_table(summary).rows[0], strict=True))["loss"] == "withheld"
    # the plan has the losses leave, and of this one noise left nothing
    one = private_summary(rounds=1)
    silent = one.rounds[1].sites[0].model_copy(update={"loss": None})
    rows = training_table(changed(one, 1, sites=[silent, *one.rounds[1].sites[1:]])).rows
    assert rows[0][1] == "lost in noise" and float(rows[0][2]) > 0


def test_what_a_private_round_does_not_say_is_withheld_and_not_zero() -> None:
    summary = private_summary()
    table = rounds_table(summary)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert [row[name] for name in ("notes", "tokens", "time")] == ["withheld"] * 3
    assert row["steps"] == "60" and float(row["loss"]) > 0
    totals = ladder(summary)[0].totals
    assert totals[1] == totals[3] == "withheld" and totals[2] == "480"
    page = section(render(summary), "rounds")
    assert 'title="returned after 60 steps; time and tokens withheld"' in page
    assert "0.0 s" not in page and "0 tokens" not in page


def test_counts_that_a_site_withholds_are_not_zero() -> None:
    summary = private_summary(released=False)
    table = sites_table(summary.sites, use=True, unit="patient")
    assert table.columns[1] == "patients in training"
    assert table.rows[1][1:] == [f"{UNITS[1]}", *["withheld"] * 8]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "other counts are withheld" in section(render(summary), "sites")
    released = sites_table(private_summary().sites, use=True, unit="patient")
    assert "withheld" not in {cell for row in released.rows for cell in row}
    assert "other counts are withheld" not in section(render(private_summary()), "sites")
    assert not any("in training" in column for column in sites_table(example_summary().sites).columns)


def test_noise_of_the_coordinator_is_another_promise() -> None:
    both = changed(private_summary(), 8, hospital_epsilon=3.204)
    found = section(render(both), "privacy")
    assert "for whole hospitals: epsilon 3.21 after round 8. That is a different promise" in found
    assert "whole hospitals" not in render(private_summary())
    alone = render(changed(example_summary(), 8, hospital_epsilon=3.204))
    assert f'<span class="badge no-dp">{NO_DP}</span>' in alone
    assert "No differential privacy at the sites" in in_sight(alone)
    assert "whole hospitals" in section(alone, "privacy") and "odds" not in section(alone, "privacy")


def test_a_private_table_says_what_its_guarantee_is_not() -> None:
    table = example_table()
    assert NO_DP in in_sight(render_table(table))
    page = in_sight(render_table(table.model_copy(update={"privacy": GUARANTEE})))
    assert f'<span class="badge dp">{GUARANTEE}</span>' in page
    assert "each row and each seed spends as much again" in page
    assert "epsilon does not cover them" in page
    assert NO_DP not in page.lower()


def test_a_table_that_is_private_in_part_does_not_look_private() -> None:
    words = f"differs by arm: mlm, {NO_DP}; private-mlm, {GUARANTEE}"
    page = in_sight(render_table(example_table().model_copy(update={"privacy": words})))
    assert f'<span class="badge no-dp">{words}</span>' in page
    assert f"In arms with {NO_DP} nothing bounds what updates and encoders may reveal" in page


def test_tokens_that_no_site_said_are_withheld_in_a_table() -> None:
    table = example_table()
    cells = [c.model_copy(update={"consumed": Consumed(steps=40, seconds=9.0)}) for c in table.cells]
    silent = consumed_table(Rows(table.model_copy(update={"cells": cells})))
    assert {row[3] for row in silent.rows} == {"withheld"}
    assert "withheld" not in {row[3] for row in consumed_table(Rows(table)).rows}


@pytest.mark.parametrize(
    "summary",
    [
        private_summary(released=False, losses=False, cap=None, unit="note"),
        private_summary(rounds=1, objective="declutr"),
        private_summary().model_copy(update={"rounds": [], "status": "stopped", "message": "no site"}),
        private_summary().model_copy(update={"sites": [], "scores": [], "comparisons": []}),
    ],
    ids=["bare", "one round", "no round", "no facts"],
)
def test_every_private_summary_renders(summary: Summary) -> None:
    page = render(summary)
    parsed = Tags(page)
    data = json.loads(parsed.scripts[0])
    places = {attributes["id"] for _, attributes in parsed.tags if attributes.get("role") == "img"}
    assert set(data) == places and all(figure["data"] for figure in data.values())
    assert section(page, "privacy") and NO_DP not in without_plotly(page).lower()


def test_a_script_in_the_name_of_a_site_does_nothing() -> None:
    summary = private_summary(rounds=1)
    hostile = [site.model_copy(update={"site": HOSTILE}) for site in summary.rounds[1].sites[:1]]
    parsed = Tags(render(changed(summary, 1, sites=hostile)))
    assert len(parsed.scripts) == 3 and "img" not in {tag for tag, _ in parsed.tags}
