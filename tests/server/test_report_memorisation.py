"""The memorisation check in the report of a run: its figures, who refuses, and that none was made where none was."""

from example_summary import example_summary
from page_tags import HOSTILE, Tags, without_plotly

from common.results import CanaryExposure, Estimate, Memorisation
from server.report import render
from server.report.memorisation import NOT_MADE, highest_by_chance, memorisation_sentences, memorisation_table


def found(site: str, low: float, **more: str) -> Memorisation:
    canaries = CanaryExposure(
        planted=10,
        controls=10,
        repeats=3,
        references=10**6,
        planted_mean=6.5,
        planted_max=12.25,
        controls_mean=1.5,
        auc=Estimate(value=0.9, low=low, high=0.99),
    )
    return Memorisation(site=site, canaries=canaries, **more)


def test_without_a_check_the_report_says_so() -> None:
    assert NOT_MADE in without_plotly(render(example_summary()))


def test_what_was_found_and_who_refuses_is_in_sight() -> None:
    check = [found("A", 0.7, veto="exposure-beyond-policy"), found("B", 0.4), Memorisation(site="C", reason="late")]
    page = without_plotly(render(example_summary().model_copy(update={"memorisation": check})))
    assert NOT_MADE not in page and "2 of 3 sites asked the encoder" in page
    assert "A refuses the release (exposure-beyond-policy): it is not exported." in page
    assert "At A the encoder knows the canaries" in page and "At B the encoder" not in page
    assert "6.5 (12.2)" in page and "10 x 3 / 10" in page and "late" in page


def test_where_nothing_is_clear_that_is_said() -> None:
    summary = example_summary().model_copy(update={"memorisation": [found("B", 0.4)]})
    assert "At no site did the encoder clearly know" in memorisation_sentences(summary)[-1]
    assert memorisation_table(summary).rows[0][-1] == "no objection"


def test_chance_is_counted() -> None:
    """The mean of the highest of n, where each bit more is half as likely."""
    assert abs(highest_by_chance(1) - 1.4427) < 1e-3 and abs(highest_by_chance(25) - 5.505) < 0.01


def test_a_script_in_a_site_s_name_does_nothing() -> None:
    check = [found(HOSTILE, 0.7, veto=HOSTILE, reason=HOSTILE)]
    parsed = Tags(render(example_summary().model_copy(update={"memorisation": check})))
    assert len(parsed.scripts) == 3 and "img" not in {tag for tag, _ in parsed.tags}
