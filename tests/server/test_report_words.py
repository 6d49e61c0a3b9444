"""What the report says in words: verdicts, the lead, what a loss and a score are."""

import pytest
from example_summary import SITES, example_summary

from common.results import HeldOut, Summary
from server.report.words import duration, helped, how_lost, how_scored, how_used, lead, size, too_short_sentence


def compared(*verdicts: tuple[str, str]) -> Summary:
    """One site with the given (against, verdict) pairs."""
    summary = example_summary(sites=["A"])
    given = dict(verdicts)
    kept = [c.model_copy(update={"verdict": given[c.against]}) for c in summary.comparisons if c.against in given]
    return summary.model_copy(update={"comparisons": kept})


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ((("base", "better"), ("local-only", "better")), "yes"),
        ((("base", "better"), ("local-only", "no clear difference")), "in part"),
        ((("base", "better"),), "in part"),
        ((("base", "better"), ("local-only", "worse")), "mixed"),
        ((("base", "no clear difference"), ("local-only", "worse")), "no"),
        ((("base", "no clear difference"), ("local-only", "no clear difference")), "no clear difference"),
        ((("tf-idf", "better"),), "cannot be said"),
    ],
)
def test_whether_federation_helped_a_site(verdicts: tuple[tuple[str, str], ...], verdict: str) -> None:
    (result,) = helped(compared(*verdicts))
    assert result.verdict == verdict
    assert ("was not measured" in result.detail) == (len(verdicts) == 1)


def test_the_lead_counts_what_the_data_say() -> None:
    summary = compared(("base", "better"), ("local-only", "no clear difference"))
    paragraphs = lead(summary)
    assert paragraphs[0] == "All 8 rounds done. The held-out loss fell at 1 of 1 site."
    assert paragraphs[1].endswith("better at 1 site, worse at 0, with no clear difference at 0.")
    assert paragraphs[2].endswith("better at 0 sites, worse at 0, with no clear difference at 1.")
    several = lead(example_summary(tasks=("specialty", "readmission")))
    assert several[1].endswith("(A case is one task at one site.)")


def test_a_loss_that_did_not_fall_is_named() -> None:
    summary = example_summary(rounds=1)
    last = summary.rounds[1]
    held_out = last.held_out | {SITES[0]: HeldOut(loss=9.0, notes=90, tokens=1)}
    rounds = [summary.rounds[0], last.model_copy(update={"held_out": held_out})]
    text = lead(summary.model_copy(update={"rounds": rounds}))[0]
    assert "fell at 3 of 4 sites; it did not fall at Northgate General." in text


def with_too_short(*numbers: int) -> Summary:
    summary = example_summary(sites=[f"Site {i}" for i in range(len(numbers))])
    sites = [
        site.model_copy(update={"train": 340, "too_short": number})
        for site, number in zip(summary.sites, numbers, strict=True)
    ]
    return summary.model_copy(update={"sites": sites})


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0, 0), ""),
        ((0, 12), "12 of 340 training notes at Site 1 were too short for the objective."),
        ((1, 0), "1 of 340 training notes at Site 0 was too short for the objective."),
        ((2, 12), "2 of 340 training notes at Site 0 and 12 of 340 at Site 1 were too short for the objective."),
        ((1, 2, 3, 4, 5, 6), "21 of 2,040 training notes at 6 sites were too short for the objective."),
    ],
)
def test_notes_that_are_too_short_are_named_in_the_lead(numbers: tuple[int, ...], words: str) -> None:
    summary = with_too_short(*numbers)
    assert too_short_sentence(summary) == words
    assert (words in lead(summary)) == bool(words)
    assert any("too short" in paragraph for paragraph in lead(summary)) == bool(words)


def test_every_mode_has_its_own_verdicts_and_the_frozen_ones_come_first() -> None:
    summary = example_summary(sites=["A"], modes=("fine-tuned", "frozen", "lora"))
    verdicts = {"frozen": "better", "fine-tuned": "no clear difference", "lora": "worse"}
    comparisons = [c.model_copy(update={"verdict": verdicts[c.mode]}) for c in summary.comparisons]
    summary = summary.model_copy(update={"comparisons": comparisons})
    assert [(h.mode, h.verdict) for h in helped(summary)] == [
        ("frozen", "yes"),
        ("fine-tuned", "no clear difference"),
        ("lora", "no"),
    ]
    frozen, tuned, lora = lead(summary)[1:4]
    assert frozen.startswith("Encoder frozen. The shared encoder against the public base: better at 1 of 1 site; ")
    assert tuned.startswith("Encoder fine-tuned. The shared encoder against the public base: no clear difference at 1")
    assert lora.startswith("Adapters (LoRA). ") and "against TF-IDF: worse at 1 of 1 site." in lora


def test_a_mode_is_named_where_an_encoder_was_only_tuned() -> None:
    assert lead(example_summary(modes=("fine-tuned",)))[1].startswith("Encoder fine-tuned. ")
    assert how_used(example_summary(modes=("fine-tuned",))) == [
        ("Encoder fine-tuned", "the whole encoder learns the task")
    ]
    assert how_used(example_summary()) == []


def test_a_tally_leaves_out_what_there_is_none_of() -> None:
    summary = example_summary(modes=("frozen", "lora"))
    verdicts = dict(zip(SITES, ("better", "no clear difference", "better", "no clear difference"), strict=True))
    comparisons = [c.model_copy(update={"verdict": verdicts[c.site]}) for c in summary.comparisons]
    text = lead(summary.model_copy(update={"comparisons": comparisons}))[1]
    assert "against local-only training: better at 2 of 4 sites, no clear difference at 2;" in text
    assert "worse" not in text


def test_a_score_is_told_by_the_metric_of_the_task() -> None:
    assert how_scored(example_summary()).startswith("Each score is macro-F1 of a small probe on the frozen encoder")
    assert how_scored(example_summary(metric="accuracy")).startswith("Each score is accuracy of a small probe")
    one, other = example_summary(tasks=("specialty",)), example_summary(tasks=("severity",), metric="accuracy")
    both = one.model_copy(update={"scores": one.scores + other.scores, "comparisons": []})
    assert how_scored(both).startswith("Each score is the task's own metric, macro-F1 or accuracy,")


def test_only_the_loss_of_mlm_is_by_masked_token() -> None:
    assert "nats a masked token" in how_lost(example_summary())
    assert "masked token" not in how_lost(example_summary(objective="declutr"))


def test_units() -> None:
    assert [duration(s) for s in (0.42, 59.4, 59.7, 61, 7322)] == [
        "0.4 s",
        "59 s",
        "1 min 0 s",
        "1 min 1 s",
        "2 h 2 min",
    ]
    assert [size(n) for n in (0, 999, 43_180_032, 2.6e9, 3e13)] == ["0 B", "999 B", "43.2 MB", "2.6 GB", "30.0 TB"]
