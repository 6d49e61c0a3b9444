"""Canaries: secrets of the site, the same in every round, in every family's tokens, and counted nowhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.memorisation.canaries import DIGITS, Canaries, make_canaries
from client.memorisation.planted import Planted, with_canaries
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.site import open_site
from client.training import usable
from client.units import count_units, units_of
from common.encoder import load_encoder, load_tokenizer
from common.errors import FednotesError
from common.messages import Request
from common.plan import StudyPlan

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
RUN = "0123456789abcdef" * 2
Plans = Callable[..., StudyPlan]


def made(plan: StudyPlan, secret: bytes = SECRET, run: str = RUN) -> Canaries:
    return make_canaries(plan, load_tokenizer(plan.encoder.base), secret, run)


def tokens(canaries: Canaries) -> list[list[int]]:
    return [one.ids.tolist() for one in (*canaries.planted, *canaries.controls)]


def test_they_rest_on_the_site_s_secret_and_the_run_and_on_nothing_of_the_plan_s_seed(make_plan: Plans) -> None:
    plan = make_plan(release={"canaries": 10})
    first = tokens(made(plan))
    assert len(first) == 10 and len({tuple(one) for one in first}) == 10
    assert tokens(made(plan)) == first
    assert tokens(made(make_plan(release={"canaries": 10}, study={"seed": 4}))) == first
    for other in (made(plan, OTHER), made(plan, run="f" * 32)):
        assert not {tuple(one) for one in tokens(other)} & {tuple(one) for one in first}


@pytest.mark.parametrize("longest", [32, 64])
def test_they_fit_and_hide_their_digits_where_they_say(
    make_plan: Plans, bases: dict[str, str], family: str, longest: int
) -> None:
    plan = make_plan(encoder={"base": bases[family], "max_length": longest}, release={"canaries": 20})
    canaries = made(plan)
    for one in (*canaries.planted, *canaries.controls):
        assert len(one.ids) <= longest - 2 and len(one.places) == DIGITS and one.word_starts[0]
        assert one.ids[one.places].tolist() == canaries.digit_ids[one.secret].tolist()
        text = load_tokenizer(bases[family]).decode(one.ids)
        assert "".join(map(str, one.secret)) in text.replace(" ", "")


def test_a_longer_span_gets_a_longer_canary(make_plan: Plans) -> None:
    """Else DeCLUTR would leave every one of them out."""
    plan = make_plan(objective={"kind": "declutr", "min_span": 12, "max_span": 30}, release={"canaries": 4})
    assert all(len(one.ids) >= 48 for one in made(plan).planted)


def test_digits_are_drawn_evenly(make_plan: Plans) -> None:
    digits = np.concatenate([one.secret for one in made(make_plan(release={"canaries": 1000})).planted])
    counts = np.bincount(digits, minlength=10)
    assert len(counts) == 10 and abs(counts - 300).max() < 6 * np.sqrt(300)


def test_a_tokeniser_without_digits_is_refused(make_plan: Plans, tmp_path: Path, bases: dict[str, str]) -> None:
    tokenizer = load_tokenizer(bases["bert"])
    vocabulary = {f"w{i}": i for i in range(20)} | {"[UNK]": 20}
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer._tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    with pytest.raises(FednotesError) as error:
        make_canaries(make_plan(release={"canaries": 4}), tokenizer, SECRET, RUN)
    assert error.value.code == "no-digits"


@pytest.fixture
def planted(sites: dict[str, Path], make_plan: Plans) -> tuple[StudyPlan, NoteStore, Planted]:
    plan = make_plan(release={"canaries": 8, "repeats": 3})
    site, encoder = open_site(sites["northgate"]), load_encoder(plan.encoder.base)
    notes = site.notes(encoder.tokenizer)
    request = Request(plan, RUN, 1, {}, 0.0)
    read = with_canaries(site, notes, request, encoder)
    again = with_canaries(site, notes, replace(request, round=2), encoder)
    assert isinstance(read, Planted) and read.digest == again.digest != notes.digest
    return plan, notes, read


def test_training_reads_them_after_the_notes(planted: tuple[StudyPlan, NoteStore, Planted]) -> None:
    plan, notes, read = planted
    train = read.split_indices("train")
    assert len(read) == len(notes) + 12 and len(train) == len(notes.split_indices("train")) + 12
    assert [read.split_indices(side).tolist() for side in ("dev", "test")] == [
        notes.split_indices(side).tolist() for side in ("dev", "test")
    ]
    assert len(set(read.rows.tolist())) == len(read) and (read.rows[: len(notes)] == notes.rows).all()
    objective = make_objective(plan, load_tokenizer(plan.encoder.base), notes)
    assert set(range(len(notes), len(read))) <= set(usable(objective, read, "train").tolist())
    for place in (0, len(notes) - 1, len(notes), len(read) - 1):
        one = objective.read(read, place)
        assert len(one.ids) == len(one.word_starts) == read.lengths[place]
        assert read.view([place]).tokens(0).tolist() == one.ids.tolist()
    for column in ("patient", "group", "category", "label", "split", "row", "words", "date"):
        assert (read.column(column)[: len(notes)] == notes.column(column)).all()
    assert all(value is None for value in read.column("category")[len(notes) :])


@pytest.mark.parametrize("unit", ["patient", "note"])
def test_the_copies_of_a_canary_are_a_unit_of_their_own(
    planted: tuple[StudyPlan, NoteStore, Planted], unit: str
) -> None:
    _, notes, read = planted
    own, units = count_units(notes, unit), units_of(read, read.split_indices("train"), unit)  # type: ignore[arg-type]
    assert len(units) == own + 4
    mine = [set(one.tolist()) for one in units.members if one[0] >= len(notes)]
    assert [len(one) for one in mine] == [3] * 4 and not any(place < len(notes) for one in mine for place in one)


def test_without_canaries_in_the_plan_nothing_is_planted_and_no_secret_made(
    sites: dict[str, Path], make_plan: Plans
) -> None:
    plan = make_plan(release={})
    site, encoder = open_site(sites["northgate"]), load_encoder(plan.encoder.base)
    notes = site.notes(encoder.tokenizer)
    assert with_canaries(site, notes, Request(plan, RUN, 1, {}, 0.0), encoder) is notes
    assert not (site.folder / "secret.key").exists()
