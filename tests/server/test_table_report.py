"""The report of a table: what its rows and figures hold, what its page says, and what it does while the table grows."""

import json
import math
import re
from pathlib import Path

import pytest
from example_summary import example_map
from example_table import ARMS, SHOTS, SITES, example_table
from page_tags import HOSTILE, Tags, without_plotly
from plotly.offline import get_plotlyjs

from common.results import POOLED, TOGETHER, Estimate
from common.table import Arm, Cell, Table
from server.figures.differences import difference_forest, pooled_differences
from server.figures.rows import MEAN_OF_SITES, Column, Row, Rows, over_seeds, student
from server.figures.space import alignment_uniformity, space_dots, space_place, spaces
from server.figures.table_scores import mode_dots, table_few_shot
from server.report import render_table, write_table_report
from server.report.grids import Grid, GridRow, grids
from server.report.table_words import budget_sentence, cells_sentence, lead, verdicts

FROZEN = Column("specialty")
MLM = Row("mlm", "federated")


def visible(page: str) -> str:
    """Without figures, and without what is folded away."""
    page = re.sub(r"<details>.*?</details>", "", without_plotly(page), flags=re.DOTALL)
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def with_cells(table: Table, change: dict[tuple[str, str, int], dict[str, object]]) -> Table:
    """The table with some cells changed, by arm, setting and seed."""
    cells = [c.model_copy(update=change.get((c.arm, c.setting, c.seed), {})) for c in table.cells]
    return table.model_copy(update={"cells": cells})


def scored(cell: Cell, values: dict[str, float]) -> Cell:
    """The cell with the given frozen macro-F1 by site and nothing else."""
    template = cell.scores[0]
    scores = [
        template.model_copy(update={"site": site, "macro_f1": Estimate(value=value), "few_shot": []})
        for site, value in values.items()
    ]
    return cell.model_copy(update={"scores": scores})


def two_seeds(first: dict[str, float], second: dict[str, float]) -> Rows:
    """A table of one row, with macro-F1 by site from either seed."""
    table = example_table()
    cells = [c for c in table.cells if (c.arm, c.setting) == ("mlm", "federated")]
    cells = [scored(cell, values) for cell, values in zip(cells, (first, second), strict=True)]
    return Rows(table.model_copy(update={"cells": cells, "differences": []}))


def row_of(grid: Grid, group: str, name: str) -> GridRow:
    return next(row for of_group in grid.groups for row in of_group.rows if (of_group.name, row.name) == (group, name))


def test_a_mean_over_two_seeds_has_students_interval() -> None:
    # 0.70 and 0.72: mean 0.71, standard error 0.02 / 2 = 0.01, and t = 12.7062 with one degree of freedom
    value = two_seeds({POOLED: 0.70}, {POOLED: 0.72}).at(MLM, FROZEN, POOLED)
    assert value is not None
    assert value.estimate.value == pytest.approx(0.71)
    assert value.estimate.low == pytest.approx(0.71 - 0.127062, abs=1e-6)
    assert value.estimate.high == pytest.approx(0.71 + 0.127062, abs=1e-6)
    assert (value.over, value.seeds) == ("seeds", 2)
    assert student(5) == pytest.approx(2.776445, abs=1e-6)


def test_an_interval_over_seeds_stays_where_macro_f1_lives() -> None:
    estimate = over_seeds([Estimate(value=0.90), Estimate(value=0.98)])
    assert (estimate.low, estimate.high) == (pytest.approx(0.94 - 12.7062 * 0.04, abs=1e-4), 1.0)


def test_one_seed_keeps_the_interval_of_its_score() -> None:
    table = example_table(seeds=[1])
    score = next(s for c in table.cells if c.arm == "mlm" and c.setting == "federated" for s in c.scores)
    rows = Rows(table)
    value = rows.at(MLM, FROZEN, POOLED)
    assert value is not None and value.estimate == score.macro_f1
    assert value.over == "test notes"
    few = rows.at(MLM, Column("specialty", "frozen", 16), POOLED)
    assert few is not None and few.over == "draws"


def test_the_mean_over_sites_is_taken_within_a_seed_first() -> None:
    # seed 1: (0.6 + 0.8) / 2 = 0.70; seed 2: (0.7 + 0.9) / 2 = 0.80. What is of all sites has no part in it.
    of_all = {POOLED: 0.1, TOGETHER: 0.2}
    rows = two_seeds(of_all | {SITES[0]: 0.6, SITES[1]: 0.8}, of_all | {SITES[0]: 0.7, SITES[1]: 0.9})
    value = rows.at(MLM, FROZEN, MEAN_OF_SITES)
    assert value is not None
    assert value.estimate.value == pytest.approx(0.75)
    assert value.estimate.low == pytest.approx(0.75 - 12.7062 * 0.05, abs=1e-4)
    assert (value.sites, value.n_test) == (2, 2 * 160)


def test_a_mean_over_sites_uses_the_sites_that_every_seed_has() -> None:
    rows = two_seeds({SITES[0]: 0.6, SITES[1]: 0.8}, {SITES[0]: 0.7, SITES[1]: math.nan})
    value = rows.at(MLM, FROZEN, MEAN_OF_SITES)
    assert value is not None
    assert (value.estimate.value, value.sites) == (pytest.approx(0.65), 1)


def test_the_grid_has_a_row_for_every_arm_and_setting_in_order() -> None:
    (grid,) = grids(Rows(example_table()), "specialty", POOLED)
    names = [[group.name, *(row.name for row in group.rows)] for group in grid.groups]
    assert names[0][1:] == ["TF-IDF", "majority class", "public base"]
    assert names[1:] == [[arm.name, "local-only", "federated", "centralised"] for arm in ARMS]
    assert [group.note for group in grid.groups[1:3]] == ["from the public base", "from the encoder of mlm"]
    assert [mode for mode, _, _ in grid.modes] == ["frozen encoder", "fine-tuned", "tuned with LoRA"]
    assert grid.modes[0][2] == "n = 160 test notes"
    assert grid.columns[:5] == ["all labels", "16 a class", "32 a class", "64 a class", "128 a class"]
    assert "128" in grid.notes[-1] and "1 class" in grid.notes[-1]


def test_the_best_of_each_column_is_marked_once_where_it_stands_alone() -> None:
    rows = Rows(example_table())
    (grid,) = grids(rows, "specialty", POOLED)
    for column in range(len(grid.columns)):
        cells = [row.cells[column] for group in grid.groups for row in group.rows]
        values = {cell.value for cell in cells if cell}
        assert {cell.value for cell in cells if cell and cell.best} == {max(values)}
    page = render_table(example_table())
    best = row_of(grid, "declutr", "centralised").cells[0]
    assert best is not None and f"<strong>{best.value}</strong>" in page


def test_a_row_that_lacks_a_site_is_marked_and_never_the_best() -> None:
    table = example_table()
    best = next(c for c in table.cells if (c.arm, c.setting, c.seed) == ("declutr", "centralised", 1))
    kept = [s for s in best.scores if s.site in (POOLED, SITES[0])]
    rows = Rows(with_cells(table, {("declutr", "centralised", 1): {"scores": kept}}))
    grid = grids(rows, "specialty", MEAN_OF_SITES)[0]
    cell = row_of(grid, "declutr", "centralised").cells[0]
    assert cell is not None
    assert (cell.note, cell.best) == ("1 of 2 sites", False)


def test_a_missing_cell_and_one_seed_are_told_in_the_grid() -> None:
    rows = Rows(example_table())
    (grid,) = grids(rows, "specialty", POOLED)
    row = row_of(grid, "note-category", "centralised")
    assert row.note == "1 of 2 seeds"
    assert row.cells[0] is not None and row.cells[0].other
    assert "†" in " ".join(grid.notes)
    (grid,) = grids(Rows(example_table(seeds=[1])), "specialty", POOLED)
    assert row_of(grid, "note-category", "centralised").note == "missing"
    assert not any(cell.other for group in grid.groups for row in group.rows for cell in row.cells if cell)
    assert grid.notes[0].startswith("One seed: 95 % intervals are over test notes")


def test_many_columns_go_to_more_than_one_grid() -> None:
    found = grids(Rows(example_table(shots=(16, 32, 64, 128, 200, 500))), "specialty", POOLED)
    assert [len(grid.columns) for grid in found] == [9, 2]


def test_few_shot_curves_share_a_scale_and_hold_what_was_not_trained() -> None:
    rows = Rows(example_table())
    panels = [table_few_shot(rows, "specialty", "frozen", setting) for setting in rows.settings]
    assert len({tuple(panel.layout.yaxis.range) for panel in panels}) == 1
    groups = [trace.legendgroup for trace in panels[1].data]
    assert list(dict.fromkeys(groups)) == ["tf-idf", "base", *(arm.name for arm in ARMS)]
    curve = next(trace for trace in panels[1].data if trace.legendgroup == "mlm")
    values = [rows.at(MLM, Column("specialty", "frozen", n), POOLED) for n in SHOTS]
    assert list(curve.y) == [value.estimate.value for value in values if value]
    assert list(panels[1].layout.xaxis.ticktext) == [*(str(n) for n in SHOTS), "all"]


def test_frozen_and_tuned_stand_in_one_row() -> None:
    rows = Rows(example_table())
    figure = mode_dots(rows, "specialty")
    assert len(figure.layout.yaxis.ticktext) == 1 + 9
    trace = next(trace for trace in figure.data if trace.legendgroup == "mlm")
    assert {symbol.removeprefix("circle") for symbol in trace.marker.symbol} == {"-open", "", "-open-dot"}
    assert len(trace.x) == 9


def test_forests_hold_the_differences_and_fill_only_clear_ones() -> None:
    table = example_table()
    rows = Rows(table)
    found = pooled_differences(table, "specialty", "frozen")
    assert list(found) == ["public base", "TF-IDF", "local-only training", "centralised training"]
    chosen = found["centralised training"]
    figure = difference_forest(rows, chosen, chosen)
    drawn = {x: symbol for trace in figure.data for x, symbol in zip(trace.x, trace.marker.symbol, strict=True)}
    assert drawn.keys() == {d.difference.value for d in chosen}
    for difference in chosen:
        hollow = drawn[difference.difference.value].endswith("-open")
        assert hollow == (difference.verdict == "no clear difference")
    assert "<b>mlm</b>" in figure.layout.yaxis.ticktext
    other = table.differences[0].model_copy(update={"against_arm": "declutr", "against_setting": "federated"})
    more = table.model_copy(update={"differences": [other, *table.differences]})
    assert list(pooled_differences(more, "specialty", "frozen"))[-1] == "declutr, federated"


def test_embedding_spaces_are_drawn_where_most_rows_have_one() -> None:
    table = example_table()
    rows = Rows(table)
    assert space_place(rows) == POOLED
    found = spaces(rows, POOLED)
    cells = [c for c in table.cells if (c.arm, c.setting) == ("mlm", "federated")]
    within = [there.space.within for cell in cells for there in cell.space if there.site == POOLED]
    mlm = next(space for space in found if space.row == MLM)
    assert mlm.measures["within"] == pytest.approx(sum(w for w in within if w is not None) / 2)
    figure = alignment_uniformity(rows, found)
    assert sum(len(trace.x) for trace in figure.data) == 1 + 9
    assert len(space_dots(rows, found, "within", "between", "cosine").data) == 1 + 9
    local_only = {
        (c.arm, c.setting, c.seed): {"space": [s for s in c.space if s.site != POOLED]}
        for c in table.cells
        if c.setting == "local-only"
    }
    without = Rows(with_cells(table, local_only))
    assert space_place(without) is MEAN_OF_SITES
    assert "mean over the sites; means over seeds" in visible(render_table(without.table))


def test_the_lead_names_the_best_and_every_verdict() -> None:
    rows = Rows(example_table())
    text = " ".join(lead(rows))
    assert "20 of 21 planned cells done" in text
    assert "With all labels and a frozen encoder, the best on the pooled test notes is centralised declutr" in text
    assert re.search(
        r"the best federated one is declutr, with macro-F1 0\.\d{3} \(0\.\d{3} to 0\.\d{3}, over 2 seeds\)", text
    )
    assert "With 16 labelled notes a class" in text
    assert "1 site left out of the study" in text
    found = dict(verdicts(rows))
    assert list(found) == [arm.name for arm in ARMS]
    assert found["declutr"].startswith("better than the public base (+0.0")
    for words in ("TF-IDF (", "local-only training (", "no clear difference from centralised training ("):
        assert words in found["declutr"]


def test_the_budget_is_compared_over_cells() -> None:
    rows = Rows(example_table())
    read = [c.consumed.tokens for c in rows.table.cells if c.consumed.tokens]
    text = budget_sentence(rows)
    assert "250,000 tokens a site and round, so 6,000,000 for a cell" in text
    assert f"{min(read):,} to {max(read):,} tokens" in text
    assert f"{100 * (max(read) / min(read) - 1):.1f} % more" in text


def test_a_growing_table_says_so() -> None:
    table = example_table()
    growing = table.model_copy(update={"status": "running", "cells": table.cells[:7], "differences": []})
    assert "7 of 21 planned cells done; the table is still growing" in cells_sentence(growing)
    page = visible(render_table(growing))
    assert '<span class="badge running">running</span>' in page
    assert "Last written" in page
    assert "not compared yet" in page and "not there yet" in page
    assert "No rows were compared" in page


def test_privacy_n_class_support_and_reasons_are_in_sight() -> None:
    page = visible(render_table(example_table()))
    for words in ("no differential privacy", "n = 160 test notes", ">cardiology</th>", "one class in the test notes"):
        assert words in page
    for site in (POOLED, *(site.replace("'", "&#39;") for site in SITES), "Westbury Infirmary"):
        assert site in page
    assert "about 4 would still look clear" in page
    assert "5,99" in page and "shortened" in page
    private = example_table().model_copy(update={"privacy": "epsilon 8 at delta 1e-5"})
    assert "no differential privacy" not in render_table(private).lower()
    assert "This site has no scores (reason under Sites)" in render_table(example_table())


def test_the_page_loads_nothing_and_every_figure_has_its_place_and_data() -> None:
    page = render_table(example_table(), example_map(sites=SITES))
    parsed = Tags(page)
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        assert "src" not in attributes
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in without_plotly(page) and "@import" not in without_plotly(page)
    assert page.count(get_plotlyjs()) == 1
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.count("'sha256-") == 2
    places = {attributes["id"]: attributes for _, attributes in parsed.tags if attributes.get("role") == "img"}
    assert set(json.loads(parsed.scripts[0])) == set(places)
    assert all(attributes["aria-label"] for attributes in places.values())
    # few-shot in 3 modes x 3 settings, one for tuning, differences, 4 of the space; the 2 maps share a table
    assert len(places) == 9 + 1 + (4 + 3 + 3) + 4 + 2
    assert page.count("The same as a table") == len(places) - 2
    anchors = {(attributes["href"] or "")[1:] for tag, attributes in parsed.tags if tag == "a"}
    assert anchors <= {attributes.get("id") for _, attributes in parsed.tags}


def test_a_script_in_a_name_does_nothing() -> None:
    hostile = [Arm(name=HOSTILE, objective="mlm", start=HOSTILE)]
    table = example_table(arms=hostile, sites=[HOSTILE, "B"], tasks=[HOSTILE]).model_copy(
        update={"study": HOSTILE, "base": HOSTILE, "left_out_sites": {HOSTILE: HOSTILE}}
    )
    parsed = Tags(render_table(table, example_map(sites=[HOSTILE])))
    assert len(parsed.scripts) == 3
    assert not any("alert" in script for script in parsed.scripts[1:])
    assert "img" not in {tag for tag, _ in parsed.tags}
    for figure in json.loads(parsed.scripts[0]).values():
        drawn = [text for trace in figure["data"] for text in (trace["name"], *trace["hovertext"])]
        drawn += figure["layout"]["yaxis"].get("ticktext", [])
        assert not any("<script" in text or "<img" in text for text in drawn)


def nothing(table: Table) -> Table:
    return table.model_copy(
        update={"cells": [], "differences": [], "not_scored": [], "left_out_sites": {}, "sites": []}
    )


def without_numbers(table: Table) -> Table:
    """What could not be measured, as not-a-number: in a score, an interval, a difference and a space."""
    first, *rest = (c for c in table.cells if c.arm == "mlm" and c.setting == "federated")
    broken = Estimate(value=math.nan, low=math.nan, high=math.nan)
    scores = [s.model_copy(update={"macro_f1": broken, "few_shot": []}) for s in first.scores[:1]]
    scores += [s.model_copy(update={"macro_f1": Estimate(value=0.5, low=math.nan, high=0.6)}) for s in first.scores[1:]]
    space = [
        there.model_copy(update={"space": there.space.model_copy(update={"within": math.nan})}) for there in first.space
    ]
    difference = table.differences[0].model_copy(update={"difference": broken})
    cells = [first.model_copy(update={"scores": scores, "space": space}), *rest[1:]]
    return table.model_copy(update={"cells": cells, "differences": [difference, *table.differences[1:]]})


def unpooled(table: Table) -> Table:
    """As a federation of real sites has it: nobody holds the notes of all."""
    cells = [
        c.model_copy(update={"scores": [s for s in c.scores if s.site != POOLED], "space": []}) for c in table.cells
    ]
    return table.model_copy(update={"cells": cells, "differences": [], "token_budget": None})


@pytest.mark.parametrize(
    "table",
    [
        nothing(example_table()),
        example_table(seeds=[1]),
        example_table(shots=()),
        example_table(tasks=["specialty", "readmission"]),
        example_table(sites=["A"], arms=ARMS[:1]),
        example_table().model_copy(update={"status": "running", "cells": example_table().cells[:1]}),
        example_table().model_copy(update={"arms": []}),
        unpooled(example_table()),
        without_numbers(example_table()),
        example_table(arms=[Arm(name=f"objective {i} {'long name ' * 6}", objective="mlm") for i in range(2)]),
    ],
    ids=[
        "nothing",
        "one seed",
        "no few-shot",
        "two tasks",
        "one site",
        "one cell",
        "no arms named",
        "unpooled",
        "not numbers",
        "long names",
    ],
)
def test_every_table_renders(table: Table) -> None:
    page = render_table(table)
    parsed = Tags(page)
    data = json.loads(parsed.scripts[0], parse_constant=lambda name: pytest.fail(f"{name} in the data of a figure"))
    assert all(figure["data"] for figure in data.values())
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(nan|None)\b", visible(page))


def test_several_tasks_are_told_apart() -> None:
    page = visible(render_table(example_table(tasks=["specialty", "readmission"])))
    assert "<h3>specialty</h3>" in page and "<h3>readmission</h3>" in page
    assert "readmission: with all labels" in page
    assert "<strong>mlm, readmission</strong>" in page


def test_the_file_is_written(tmp_path: Path) -> None:
    write_table_report(example_table(seeds=[1], shots=()), tmp_path / "table.html", example_map(sites=SITES))
    text = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "No few-shot scores were taken" in text
    assert "This is simulated data" in text
