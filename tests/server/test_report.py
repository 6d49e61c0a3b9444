"""The report: what its figures hold, what its page says, and what it does with hostile or missing values."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from example_summary import CLASSES, SITES, example_map, example_summary
from page_tags import HOSTILE, Tags, without_plotly
from plotly.offline import get_plotlyjs

from common.errors import MachineError
from common.results import Estimate, HeldOut, Round, SiteRound, Summary
from server import figures
from server.figures.style import MODEL_MARKS, label, marks, plain
from server.report import render, write_report


def empty_summary(**changes: object) -> Summary:
    nothing: dict[str, object] = {"scores": [], "comparisons": [], "not_scored": [], "left_out_sites": {}}
    return example_summary().model_copy(update=nothing | changes)


def test_the_page_loads_nothing_and_runs_only_its_own_two_scripts() -> None:
    page = render(example_summary(), example_map())
    parsed = Tags(page)
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        assert "src" not in attributes
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in without_plotly(page)
    assert "@import" not in without_plotly(page)
    assert page.count(get_plotlyjs()) == 1
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == 2
    assert len(parsed.scripts) == 3


def test_a_script_in_a_name_does_nothing() -> None:
    summary = example_summary(sites=[HOSTILE, "B"], tasks=(HOSTILE,)).model_copy(
        update={"study": HOSTILE, "message": HOSTILE, "base": HOSTILE, "left_out_sites": {HOSTILE: HOSTILE}}
    )
    parsed = Tags(render(summary, example_map(sites=[HOSTILE])))
    assert len(parsed.scripts) == 3
    assert not any("alert" in script for script in parsed.scripts[1:])
    assert "img" not in {tag for tag, _ in parsed.tags}
    data = json.loads(parsed.scripts[0])
    assert any(trace["legendgroup"] == HOSTILE for figure in data.values() for trace in figure["data"])
    # Plotly reads HTML in the text that it draws, so what it gets to draw is escaped
    for figure in data.values():
        for trace in figure["data"]:
            assert "<script" not in trace["name"] + "".join(trace["hovertext"])


def test_privacy_n_and_class_support_are_in_sight() -> None:
    summary = example_summary()
    page = without_plotly(render(summary))
    visible = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    visible = re.sub(r"<script.*?</script>", "", visible, flags=re.DOTALL)
    assert "no differential privacy" in visible
    for score in summary.scores:
        assert f"n = {score.n_test}" in visible
        for name, number in score.support.items():
            assert f">{name}</th>" in visible
            assert f"<td>{number}</td>" in visible
    for site in SITES:
        assert site.replace("'", "&#39;") in visible
    assert "Westbury Infirmary" in visible
    assert "one class in the test notes" in visible
    assert "no answer within 300 s" in visible


def test_another_privacy_is_shown_as_given() -> None:
    page = without_plotly(render(example_summary().model_copy(update={"privacy": "epsilon 8 at delta 1e-5"})))
    assert "epsilon 8 at delta 1e-5" in page
    assert "no differential privacy" not in page.lower()


def test_every_figure_of_the_page_has_its_place_and_a_label() -> None:
    parsed = Tags(render(example_summary(), example_map()))
    places = {attributes["id"]: attributes for _, attributes in parsed.tags if attributes.get("role") == "img"}
    assert set(json.loads(parsed.scripts[0])) == set(places)
    assert len(places) == 2 + 4 + 1 + len(SITES) + 2
    assert all(attributes["aria-label"] for attributes in places.values())


def test_held_out_loss_has_a_line_a_site_from_round_0() -> None:
    summary = example_summary(rounds=3)
    figure = figures.held_out_loss(summary)
    assert [trace.legendgroup for trace in figure.data] == SITES
    assert list(figure.data[1].x) == [0, 1, 2, 3]
    assert list(figure.data[1].y) == [round_.held_out[SITES[1]].loss for round_ in summary.rounds]
    assert figure.layout.yaxis.title.text == "held-out loss (nats a masked token)"
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_missing_loss_is_a_gap() -> None:
    figure = figures.training_loss(example_summary(rounds=4))
    left_out = next(trace for trace in figure.data if trace.legendgroup == SITES[2])
    assert list(left_out.x) == [1, 2, 3, 4]
    assert np.isnan(left_out.y).tolist() == [False, False, True, False]
    assert not left_out.connectgaps


def test_score_dots_hold_values_and_intervals() -> None:
    summary = example_summary()
    figure = figures.score_dots(summary, "specialty")
    assert [trace.legendgroup for trace in figure.data] == list(MODEL_MARKS)
    federated = [s for s in summary.scores if s.model == "federated"]
    trace = figure.data[0]
    assert list(trace.x) == [s.macro_f1.value for s in federated]
    assert trace.x[0] + trace.error_x.array[0] == pytest.approx(federated[0].macro_f1.high)
    assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(federated[0].macro_f1.low)
    assert all(f"n = {s.n_test} test notes" in text for s, text in zip(federated, trace.hovertext, strict=True))
    assert "cardiology" in trace.hovertext[0]
    assert f"n = {federated[0].n_test}" in figure.layout.yaxis.ticktext[0]
    # TF-IDF has no AUROC here: it is left out, not drawn at zero
    assert "tf-idf" not in [trace.legendgroup for trace in figures.score_dots(summary, "specialty", auroc=True).data]


def test_forests_share_a_scale_and_fill_only_clear_differences() -> None:
    summary = example_summary()
    ranges = {tuple(figures.forest(summary, "specialty", m).layout.xaxis.range) for m in ("base", "local-only")}
    assert len(ranges) == 1
    low, high = ranges.pop()
    assert low < 0 < high
    trace = figures.forest(summary, "specialty", "base").data[0]
    rows = [c for c in summary.comparisons if c.against == "base"]
    assert list(trace.x) == [c.difference.value for c in rows]
    hollow = [symbol.endswith("-open") for symbol in trace.marker.symbol]
    assert hollow == [c.verdict == "no clear difference" for c in rows]
    assert not figures.forest(summary, "specialty", "federated").data


def test_few_shot_curves_end_with_a_point_for_all_labels() -> None:
    summary = example_summary()
    figure = figures.few_shot(summary, "specialty", SITES[0])
    score = next(s for s in summary.scores if s.site == SITES[0] and s.model == "federated")
    curve, whole = figure.data[:2]
    assert list(curve.y) == [f.macro_f1.value for f in score.few_shot]
    assert list(whole.y) == [score.macro_f1.value]
    assert whole.x[0] > curve.x[-1]
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "4", "8", "16", "32", "all"]
    assert curve.marker.color == whole.marker.color == MODEL_MARKS["federated"].colour
    other = figures.few_shot(summary, "specialty", SITES[1])
    assert other.layout.yaxis.range == figure.layout.yaxis.range


def test_the_map_keeps_the_colours_of_the_sites() -> None:
    embedding = example_map()
    by_category = figures.embedding_map(embedding, "category")
    assert sorted(trace.legendgroup for trace in by_category.data) == sorted(CLASSES)
    assert by_category.layout.xaxis.title.text == "PCA 1 (23% of the variance)"
    by_site = figures.embedding_map(embedding, "site", SITES)
    loss = figures.held_out_loss(example_summary())
    colours = {trace.legendgroup: trace.line.color for trace in loss.data}
    assert {trace.legendgroup: trace.marker.color for trace in by_site.data} == colours
    assert sum(len(trace.x) for trace in by_site.data) == len(embedding.points)
    page = render(example_summary(), embedding)
    assert "This is simulated data" in page
    assert "This is simulated data" not in render(example_summary())


def test_twenty_marks_are_distinct() -> None:
    looks = marks(str(i) for i in range(21))
    assert len({(look.colour, look.dash) for look in looks.values()}) == 21
    assert len({(look.colour, look.symbol) for look in looks.values()}) == 21


def test_text_for_plotly_is_escaped_and_cut() -> None:
    assert plain("a <b>&</b>\n c") == "a &lt;b&gt;&amp;&lt;/b&gt; c"
    assert plain("abcdef", 4) == "abc…"
    assert label("Saint Somebody University Hospital of the North").count("<br>") == 1
    assert label("") == ""


def test_a_stopped_study_says_so() -> None:
    summary = empty_summary(status="stopped", message="Harbour Clinic did not answer", rounds=[])
    page = without_plotly(render(summary))
    assert "The study stopped after 0 of 8 rounds." in page
    assert "Harbour Clinic did not answer" in page
    assert "cannot say whether federation helped" in page
    assert "No loss was recorded" in page


def odd_rounds() -> list[Round]:
    sites = [
        SiteRound(site="A", state="returned", loss=None),
        SiteRound(site="B", state="left-out"),
        SiteRound(site="C", state="returned", loss=math.nan),
    ]
    held_out = {"A": HeldOut(loss=math.nan, notes=0, tokens=0), "C": HeldOut(loss=1.5, notes=3, tokens=9)}
    return [Round(number=1, attempts=1, seconds=1.0, sites=sites, held_out=held_out)]


def bare_scores() -> Summary:
    """Scores without an interval, without few-shot curves and without comparisons."""
    summary = example_summary(sites=["A"])
    bare = {"macro_f1": Estimate(value=1.0), "auroc": None, "few_shot": []}
    scores = [s.model_copy(update=bare) for s in summary.scores[:1]]
    return summary.model_copy(update={"scores": scores, "comparisons": []})


@pytest.mark.parametrize(
    "summary",
    [
        empty_summary(),
        empty_summary(sites=[], rounds=[], versions={}),
        empty_summary(sites=[], rounds=odd_rounds()),
        bare_scores(),
        example_summary(sites=["A"], rounds=1),
        example_summary().model_copy(update={"scores": []}),
        example_summary(sites=[f"Site {i} {'long name ' * 12}" for i in range(20)], rounds=50, tasks=("a", "b")),
        example_summary(modes=("frozen", "fine-tuned", "lora"), objective="declutr", spaces=True, tasks=("a", "b")),
        example_summary(modes=("lora",), objective="note-category", metric="accuracy"),
    ],
    ids=["unscored", "nothing", "odd rounds", "bare scores", "one site", "compared only", "large", "all", "tuned only"],
)
def test_every_summary_renders(summary: Summary) -> None:
    parsed = Tags(render(summary))
    data = json.loads(parsed.scripts[0])
    assert all(figure["data"] for figure in data.values())
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(empty_summary(), path)
    first = path.read_text(encoding="utf-8")
    assert first.startswith("<!doctype html>")
    assert first.endswith("</html>")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(MachineError):
        write_report(example_summary(), path)
    assert path.read_text(encoding="utf-8") == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_is_an_error_to_act_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        write_report(empty_summary(), tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
