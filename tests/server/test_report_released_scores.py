"""Scores of real sites on the pages: without classes, with those that keep theirs, and with who is worse off."""

import re

import pytest
from example_private import private_summary
from example_summary import CLASSES, SITES, example_summary
from page_tags import Tags, without_plotly

from common.results import Estimate, NotScored, Summary
from common.scores import KEPT
from server import figures
from server.export.card import model_card
from server.report import privacy_words, render, words
from server.report.tables import NOTHING, few_shot_table, score_table, support_table


@pytest.fixture
def summary() -> Summary:
    """The last site keeps its scores; at the first the shared encoder is clearly worse than training alone."""
    made = example_summary()
    scores = [
        one.model_copy(
            update={
                "support": {},
                "few_shot": [few.model_copy(update={"per_seed": [], "short_classes": None}) for few in one.few_shot],
            }
        )
        for one in made.scores
        if one.site != SITES[-1] and one.model not in ("majority", "centralised")
    ]
    comparisons = []
    for one in made.comparisons:
        if one.site == SITES[-1] or one.against == "centralised":
            continue
        if (one.site, one.against) == (SITES[0], "local-only"):
            one = one.model_copy(update={"difference": Estimate(value=-0.1, low=-0.15, high=-0.05), "verdict": "worse"})
        comparisons.append(one)
    kept = [NotScored(site=SITES[-1], task="specialty", reason=KEPT)]
    changes = {"engine": "servers", "scores": scores, "comparisons": comparisons, "not_scored": kept}
    return made.model_copy(update=changes)


def test_the_report_shows_them_and_says_that_the_classes_stay(summary: Summary) -> None:
    page = render(summary)
    text = without_plotly(page)
    assert "did federation help?" in text and KEPT in text
    assert "the classes, and how many notes each has, stay at the site" in text
    for score in summary.scores:
        assert f"n = {score.n_test}" in text
    assert not any(name in page for name in CLASSES) and "0 classes" not in text and "None" not in text
    assert "centralised" not in text and "not measured" not in text  # no notes were ever in one place
    assert "of each class" in text and not re.search(r"test notes: ?<", text)
    Tags(page)


def test_who_is_worse_off_is_flagged(summary: Summary) -> None:
    (found,) = (one for one in words.helped(summary) if one.site == SITES[0])
    assert (found.kind, "worse than" in found.detail) == ("worse", True) or found.verdict == "mixed"
    assert any("worse at 1" in sentence for sentence in words.comparison_sentences(summary))
    assert "1 task not scored at a site" in words.lead(summary)[-1]


def test_figures_and_tables_cope_without_classes(summary: Summary) -> None:
    dots = figures.score_dots(summary, "specialty")
    assert all("the classes stay at the site" in text for trace in dots.data for text in trace.hovertext)
    curve = figures.few_shot(summary, "specialty", SITES[0])
    assert curve.data and not any("draws" in text for trace in curve.data for text in trace.hovertext)
    assert all(row[-1] == "stay at the site" for row in score_table(summary, "specialty").rows)
    few = few_shot_table(summary, "specialty", SITES[0])
    assert {row[3] for row in few.rows} == {row[4] for row in few.rows} == {NOTHING}
    assert support_table(summary, "specialty").columns == ["site", "training notes", "test notes (n)"]


def test_the_model_card_has_them(summary: Summary) -> None:
    card = model_card(summary, "mean", 256)
    assert "Task specialty" in card and KEPT in card and "tf-idf" in card.lower()


def test_a_private_study_over_servers_is_not_called_a_simulation(summary: Summary) -> None:
    made = private_summary().model_copy(update={"engine": "servers", "scores": summary.scores})
    sentences = " ".join(privacy_words.small_print(made))
    assert "simulation" not in sentences and "By their policies sites released more: scores" in sentences
    assert "simulation" in " ".join(privacy_words.small_print(private_summary()))
