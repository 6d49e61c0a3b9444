"""The card in the folder of a model."""

from example_private import private_summary
from example_summary import example_summary

from server.report.model_card import model_card


def test_without_privacy_the_card_says_so_and_what_follows() -> None:
    card = model_card(example_summary())
    assert "**No differential privacy.** Nothing bounds what these weights may reveal" in card
    assert "Each site added noise" not in card


def test_with_privacy_it_has_the_promise_and_its_limits() -> None:
    summary = private_summary()
    card = model_card(summary)
    assert summary.privacy[1:] in card and "is not covered" in card
    assert "Nothing bounds" not in card and "no differential privacy" not in card.lower()
    assert summary.plan_hash in card and summary.base in card
