"""The card: all that it promises, no count below the floor, and names that can do nothing."""

import re
from pathlib import Path

import pytest
import yaml
from example_private import UNITS, private_summary
from example_summary import example_summary
from markdown_it import MarkdownIt

from common.encoder import PACKAGED
from common.results import CanaryExposure, Estimate, IdentifierCompletion, Memorisation, NotScored, Summary
from server.export.card import model_card
from server.export.licence import base_licence
from server.export.markdown import plain

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "[click](javascript:alert(3))",
    "![](http://evil.example/x.png)",
    "| a | b |\n|---|---|\n# Title",
    "---\nlicense: mit\n---",
    "www.evil.example and http://evil.example/ and mail@evil.example",
    "**bold** _soft_ `code` ~~gone~~ $x^2$",
    "&lt;b&gt; &#60;b&#62; \\<b>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202eevil\u2066 \x00\x07",
]


def card(summary: Summary) -> str:
    return model_card(summary, "mean", 256)


def front_matter(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_it_has_all_that_a_reader_looks_for() -> None:
    summary = example_summary()
    text = card(summary)
    for title in ("Intended use", "Out of scope", "Training", "Sites and their notes", "Evaluation", "Privacy"):
        assert f"## {title}" in text
    for title in ("Memorisation check", "Limitations", "Licence"):
        assert f"## {title}" in text
    assert summary.plan_hash in text and "8 of 8" in text and "masked language modelling" in text
    for site in summary.sites:
        assert f"| {site.name} |" in text and f"{site.train:,}" in text
    assert "public base" in text and "TF-IDF" in text and "local-only training" in text
    assert re.search(r"\| 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) \|", text)
    assert len(text.splitlines()) < 300


def test_without_privacy_it_says_so_and_what_follows() -> None:
    text = card(example_summary())
    assert "**No differential privacy.**" in text and "Nothing bounds what these weights may reveal" in text
    assert "No memorisation check was made" in text


def test_with_privacy_it_has_unit_epsilon_delta_and_adjacency() -> None:
    summary = private_summary()
    text = card(summary)
    assert (
        summary.privacy[1:] in text and "Nothing bounds" not in text and "no differential privacy" not in text.lower()
    )
    assert "zero-out" in text and "1e-05" in text and "one patient" in text
    last = {did.site: did.privacy for one in summary.rounds for did in one.sites if did.privacy}
    for site, spent in last.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {site} | ") and "1e-05" in line)
        assert float(row.split("|")[2]) >= spent.epsilon - 1e-9  # never rounded down


def test_withheld_counts_are_withheld_and_small_ones_not_printed() -> None:
    text = card(private_summary(released=False))
    sites = [line for line in text.splitlines() if "withheld" in line and line.startswith("|")]
    assert len(sites) == 4 and str(UNITS[0]) in text
    summary = example_summary()
    small = [site.model_copy(update={"train": 21, "dev": 19, "test": 11}) for site in summary.sites]
    few = [score.model_copy(update={"n_test": 13}) for score in summary.scores]
    rounds = [
        one.model_copy(update={"held_out": {s: h.model_copy(update={"notes": 17}) for s, h in one.held_out.items()}})
        for one in summary.rounds
    ]
    reasons = {"A": "It has 12 training notes; at least 20 are needed.", "B": "It has 41 notes."}
    changed = {"sites": small, "scores": few, "rounds": rounds, "left_out_sites": reasons}
    text = card(summary.model_copy(update=changed))
    assert "It has fewer than 20 training notes; at least 20 are needed." in text and "It has 41 notes." in text
    cells = {cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert "21" in cells and "fewer than 20" in cells and not cells & {"19", "11", "13", "17"}


FOUND = Memorisation(
    site="Harbour Clinic",
    canaries=CanaryExposure(
        planted=25,
        controls=25,
        repeats=1,
        references=10**6,
        planted_mean=9.8,
        planted_max=19.9,
        controls_mean=1.4,
        auc=Estimate(value=0.97, low=0.88, high=0.99),
    ),
    identifiers=IdentifierCompletion(
        train_notes=200,
        held_out_notes=60,
        train_completed=0.4,
        held_out_completed=0.1,
        completed=Estimate(value=0.3, low=0.2, high=0.4),
        likelihood=Estimate(value=1.25, low=1.0, high=1.5),
    ),
)


def test_the_check_stands_with_its_figures_and_with_who_refuses() -> None:
    silent = Memorisation(site="St Brigid's", reason="no reply in time")
    text = card(example_summary().model_copy(update={"memorisation": [FOUND, silent]}))
    assert "1 of 2 sites asked the encoder" in text and "9.8 (19.9)" in text and "0.97 (0.88 to 0.99)" in text
    assert "At Harbour Clinic the encoder knows" in text and "no reply in time" in text
    assert "No memorisation check" not in text
    refused = FOUND.model_copy(update={"veto": "exposure-beyond-policy"})
    assert "Harbour Clinic refuses the release" in card(
        example_summary().model_copy(update={"memorisation": [refused]})
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_can_do_nothing(name: str) -> None:
    summary = example_summary(sites=[name, "B"], tasks=(name,)).model_copy(
        update={
            "study": name,
            "message": name,
            "base": name,
            "status": "stopped",
            "left_out_sites": {name: name},
            "not_scored": [NotScored(site=name, task=name, reason=name)],
            "memorisation": [FOUND.model_copy(update={"site": name, "reason": name, "veto": name})],
        }
    )
    text = card(summary)
    assert set(front_matter(text)) <= {"library_name", "pipeline_tag", "tags", "license", "base_model"}
    assert "license" not in front_matter(text) and "base_model" not in front_matter(text)
    body = text.split("---\n", 2)[2]
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    plainly = example_summary(sites=["A", "B"], tasks=("t",))
    assert _shape(parser, body) == _shape(parser, card(_like(summary, plainly)).split("---\n", 2)[2])
    assert "<script" not in body and "<img" not in body and "://" not in body and "www." not in body
    assert not any("\u202a" <= letter <= "\u2069" for letter in body)


def _like(summary: Summary, plainly: Summary) -> Summary:
    """The same summary with names of plain letters."""
    name = "A"
    return plainly.model_copy(
        update={
            "study": name,
            "message": name,
            "base": name,
            "status": "stopped",
            "left_out_sites": {name: name},
            "not_scored": [NotScored(site=name, task=name, reason=name)],
            "memorisation": [FOUND.model_copy(update={"site": name, "reason": name, "veto": name})],
        }
    )


def _shape(parser: MarkdownIt, text: str) -> list[str]:
    """The marks of a page, without its words: every heading, row, link, image and piece of HTML."""
    found = []
    for token in parser.parse(text):
        found.append(token.type)
        found += [child.type for child in token.children or () if child.type not in ("text", "text_special")]
    return [kind for kind in found if kind not in ("softbreak", "inline")]


def test_plain_words_stay_readable() -> None:
    assert plain("St Brigid's, 2nd floor (north): a_b 1.5") == "St Brigid's, 2nd floor (north): a_b 1.5"


def test_the_licence_is_that_of_the_base_s_own_files(tmp_path: Path) -> None:
    assert base_licence(PACKAGED) == "apache-2.0"
    text = card(example_summary().model_copy(update={"base": PACKAGED}))
    assert front_matter(text)["license"] == "apache-2.0" and "The base is under apache-2.0" in text
    (tmp_path / "README.md").write_text("---\nlicense: [mit, x]\n---\n# Hello\n", encoding="utf-8")
    assert base_licence(str(tmp_path)) == base_licence("nobody/nothing") == base_licence("packaged:none") == ""
    assert "state no licence: see the base" in card(example_summary().model_copy(update={"base": str(tmp_path)}))


def test_no_path_of_the_coordinator_s_machine_is_in_it(tmp_path: Path) -> None:
    text = card(example_summary().model_copy(update={"base": str(tmp_path / "my-base")}))
    assert str(tmp_path) not in text and "the folder my-base" in text
