"""What the report shows beyond frozen encoders and MLM: modes, metrics, parts of a loss, embedding spaces."""

import json
import re

import pytest
from example_summary import SITES, example_summary
from page_tags import HOSTILE, Tags, without_plotly

from common.results import Mode, Summary
from server import figures
from server.figures.style import MODEL_MARKS
from server.figures.tasks import mode_scores, modes
from server.report import render
from server.report.round_tables import all_space_table, part_table, rounds_table, space_table
from server.report.tables import few_shot_table, score_table, sites_table

ALL: tuple[Mode, ...] = ("frozen", "fine-tuned", "lora")
WORDS = ("tf-idf", "majority")


def titles(page: str) -> list[str]:
    return re.findall(r'<h[34] class="mode-title">(.*?)</h[34]>', page)


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', without_plotly(page), flags=re.DOTALL)
    return found[0] if found else ""


def test_the_modes_stand_apart_and_in_order() -> None:
    page = without_plotly(render(example_summary(modes=("lora", "frozen", "fine-tuned"))))
    assert titles(section(page, "federation")) == ["Encoder frozen", "Encoder fine-tuned", "Adapters (LoRA)"]
    assert titles(section(page, "labels")) == ["Encoder frozen", "Encoder fine-tuned", "Adapters (LoRA)"]
    assert page.count("did federation help?") == 3
    assert titles(without_plotly(render(example_summary()))) == []
    assert set(titles(without_plotly(render(example_summary(modes=("lora",)))))) == {"Adapters (LoRA)"}


@pytest.mark.parametrize("mode", ALL)
def test_a_figure_has_the_scores_of_its_mode_and_what_has_no_encoder(mode: Mode) -> None:
    summary = example_summary(modes=ALL)
    trace, *_ = figures.score_dots(summary, "specialty", mode).data
    assert list(trace.x) == [s.macro_f1.value for s in summary.scores if (s.model, s.mode) == ("federated", mode)]
    shown = [trace.legendgroup for trace in figures.score_dots(summary, "specialty", mode).data]
    assert shown == list(MODEL_MARKS)
    forest = figures.forest(summary, "specialty", "tf-idf", mode).data[0]
    chosen = [c.difference.value for c in summary.comparisons if (c.against, c.mode) == ("tf-idf", mode)]
    assert list(forest.x) == chosen and len(chosen) == len(SITES)
    assert {s.mode for s in mode_scores(summary, "specialty", mode) if s.model not in WORDS} == {mode}
    assert len(score_table(summary, "specialty", mode).rows) == len(SITES) * len(MODEL_MARKS)


def test_figures_of_all_modes_share_a_scale() -> None:
    summary = example_summary(modes=ALL)
    dots = {tuple(figures.score_dots(summary, "specialty", mode).layout.xaxis.range) for mode in ALL}
    forests = {tuple(figures.forest(summary, "specialty", "base", mode).layout.xaxis.range) for mode in ALL}
    curves = {tuple(figures.few_shot(summary, "specialty", SITES[0], mode).layout.yaxis.range) for mode in ALL}
    assert len(dots) == len(forests) == len(curves) == 1


def test_few_shot_curves_of_a_mode_need_an_encoder() -> None:
    summary = example_summary(modes=("frozen", "fine-tuned"))
    tuned = figures.few_shot(summary, "specialty", SITES[0], "fine-tuned")
    groups = list(dict.fromkeys(trace.legendgroup for trace in tuned.data))
    assert groups == ["federated", "base", "local-only", "centralised", "tf-idf"]
    assert len(tuned.data[0].x) == 1 and len(tuned.data[-2].x) == 6
    scores = [s.model_copy(update={"few_shot": []}) if s.mode == "fine-tuned" else s for s in summary.scores]
    without = summary.model_copy(update={"scores": scores})
    # the curve of TF-IDF alone stands with the frozen encoders only
    assert not figures.few_shot(without, "specialty", SITES[0], "fine-tuned").data
    assert figures.few_shot(without, "specialty", SITES[0]).data


def test_what_has_no_encoder_makes_no_mode_of_its_own() -> None:
    assert modes(example_summary(modes=("lora",))) == ["lora"]
    summary = example_summary()
    words = [s for s in summary.scores if s.model in WORDS]
    assert modes(summary.model_copy(update={"scores": words, "comparisons": []})) == ["frozen"]


def test_accuracy_is_shown_where_the_task_goes_by_it() -> None:
    summary = example_summary(metric="accuracy")
    dots = figures.score_dots(summary, "specialty")
    assert dots.layout.xaxis.title.text == "accuracy"
    federated = [s for s in summary.scores if s.model == "federated"]
    assert list(dots.data[0].x) == [s.accuracy.value for s in federated]
    assert "accuracy 0." in dots.data[0].hovertext[0]
    assert figures.forest(summary, "specialty", "base").layout.xaxis.title.text == "difference in accuracy"
    curve = figures.few_shot(summary, "specialty", SITES[0])
    assert curve.layout.yaxis.title.text == "accuracy"
    assert list(curve.data[0].y) == [few.accuracy.value for few in federated[0].few_shot if few.accuracy]
    assert few_shot_table(summary, "specialty", SITES[0]).columns[2] == "accuracy"
    page = without_plotly(render(summary))
    assert "Accuracy by site and model" in page and "difference in accuracy" in page
    # a table has all metrics as columns; nothing else speaks of the other one
    assert "macro-F1" not in re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)


def test_a_point_without_an_accuracy_is_left_out() -> None:
    summary = example_summary(metric="accuracy")
    old = [few.model_copy(update={"accuracy": None}) for few in summary.scores[0].few_shot]
    scores = [summary.scores[0].model_copy(update={"few_shot": old}), *summary.scores[1:]]
    figure = figures.few_shot(summary.model_copy(update={"scores": scores}), "specialty", SITES[0])
    assert summary.scores[0].model not in {trace.legendgroup for trace in figure.data}


def test_sites_that_go_by_different_metrics_are_told_apart() -> None:
    one, other = example_summary(sites=["A"]), example_summary(sites=["B"], metric="accuracy")
    summary = one.model_copy(update={"scores": one.scores + other.scores})
    figure = figures.score_dots(summary, "specialty")
    assert figure.layout.xaxis.title.text == "macro-F1 or accuracy"
    first, second = figure.layout.yaxis.ticktext
    assert first.endswith("; macro-F1") and second.endswith("; accuracy")
    federated = [next(s for s in scores if s.model == "federated") for scores in (one.scores, other.scores)]
    assert list(figure.data[0].x) == [federated[0].macro_f1.value, federated[1].accuracy.value]


def test_parts_of_the_loss_have_a_figure_each() -> None:
    summary = example_summary(objective="declutr", rounds=3)
    figure = figures.held_out_part(summary, "contrastive")
    assert [trace.legendgroup for trace in figure.data] == SITES
    assert list(figure.data[0].y) == [round_.held_out[SITES[0]].parts["contrastive"] for round_ in summary.rounds]
    assert figures.held_out_part(summary, "mlm").layout.yaxis.title.text == "nats a masked token"
    assert figures.held_out_loss(summary).layout.yaxis.title.text == "held-out loss (nats)"
    assert part_table(summary, "contrastive").rows[2][0] == "2"
    assert "loss: contrastive" in rounds_table(summary).columns
    page = without_plotly(render(summary))
    assert "Parts of the held-out loss" in page and "contrastive spans (DeCLUTR)" in page
    plain = without_plotly(render(example_summary()))
    assert "Parts of the held-out loss" not in plain and "nats a masked token" in plain


def spaced(rounds: int = 4) -> Summary:
    return example_summary(rounds=rounds, spaces=True)


def test_the_embedding_space_is_drawn_by_round_where_a_site_released_it() -> None:
    summary = spaced()
    gap = figures.space_lines(summary, "gap", "gap")
    assert [trace.legendgroup for trace in gap.data] == SITES[:-1]
    spaces = [round_.held_out[SITES[0]].space for round_ in summary.rounds]
    expected = [s.within - s.between for s in spaces if s and s.within is not None and s.between is not None]
    assert list(gap.data[0].x) == [0, 1, 2, 3, 4]
    assert list(gap.data[0].y) == pytest.approx(expected)
    assert "90 held-out notes" in gap.data[0].hovertext[0] and "within a class 0." in gap.data[0].hovertext[0]
    # the second site has too few categories: no line, and no zero
    category = figures.space_lines(summary, "silhouette_category", "silhouette")
    assert [trace.legendgroup for trace in category.data] == [SITES[0], SITES[2]]
    # a site keeps its colour
    colours = {trace.legendgroup: trace.line.color for trace in figures.held_out_loss(summary).data}
    assert all(trace.line.color == colours[trace.legendgroup] for trace in gap.data)


def test_every_figure_of_the_space_has_its_table_and_says_what_left_the_sites() -> None:
    found = section(render(spaced()), "space")
    assert found.count('role="img"') == 7
    assert found.count("The same as a table") == 7
    assert "only they left it, never an embedding" in found
    assert f"{SITES[-1]} gave none." in found
    assert 'href="#space"' in render(spaced())
    assert section(render(example_summary()), "space") == ""
    assert 'href="#space"' not in render(example_summary())


def test_the_tables_of_the_space_hold_its_figures() -> None:
    summary = spaced()
    space = summary.rounds[2].held_out[SITES[0]].space
    assert space is not None and space.within is not None and space.between is not None
    row = space_table(summary, "gap", "Gap").rows[2]
    assert row[1] == f"{space.within - space.between:.3f} ({space.within:.3f} − {space.between:.3f})"
    assert row[-1] == "–"
    assert space_table(summary, "uniformity", "Uniformity").rows[0][1].startswith("−1.")
    table = all_space_table(summary)
    assert len(table.rows) == 5 * 3
    assert "modularity by label" in table.columns and "CKA to local-only training" not in table.columns


def test_the_sites_table_says_how_their_notes_are_used() -> None:
    summary = example_summary()
    table = sites_table(summary.sites, use=True)
    assert table.columns[1:5] == ["training notes", "used whole", "shortened", "too short"]
    site = summary.sites[0]
    assert table.rows[0][1:5] == [f"{n:,}" for n in (site.train, site.whole, site.shortened, site.too_short)]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "not at all, where it is too short" in section(render(summary), "sites")
    assert "too short" not in sites_table(summary.sites).columns


def test_a_script_in_a_name_does_nothing_in_the_new_sections() -> None:
    summary = example_summary(sites=[HOSTILE, "B"], tasks=(HOSTILE,), modes=ALL, objective="declutr", spaces=True)
    rounds = [
        round_.model_copy(
            update={
                "held_out": {
                    site: held_out.model_copy(update={"parts": {HOSTILE: 1.0}})
                    for site, held_out in round_.held_out.items()
                }
            }
        )
        for round_ in summary.rounds
    ]
    parsed = Tags(render(summary.model_copy(update={"rounds": rounds, "objective": HOSTILE})))
    assert len(parsed.scripts) == 3
    assert "img" not in {tag for tag, _ in parsed.tags}
    drawn = [trace for figure in json.loads(parsed.scripts[0]).values() for trace in figure["data"]]
    assert any("Mercy" in "".join(trace["hovertext"]) for trace in drawn)
    assert not any("<script" in "".join(trace["hovertext"]) + trace["name"] for trace in drawn)
