"""Which words a site's update betrays: the rows of the word embeddings that moved unlike the others are those of the
words that its notes have. A plain round gives them away; a private one must not. Fifteen seconds.

Twenty notes and the packaged encoder, whose vocabulary they use a fiftieth of.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from private_helpers import key_of, store_of

from client.dpsgd import Mechanism, train_privately
from client.memorisation.exposure import auc
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.training import train, usable
from client.units import units_of
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.privacy import noise_for, sampling_rate

NOTES, STEPS, EPSILON, DELTA = 20, 8, 8.0, 1e-3


def study(**sections: dict[str, Any]) -> StudyPlan:
    return StudyPlan.model_validate(
        {
            "study": {"name": "words"},
            "encoder": {"max_length": 64},
            "training": {"batch_size": 8, "weight_decay": 0.0, "steps_per_round": STEPS, "precision": "float32"},
        }
        | sections
    )


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> NoteStore:
    short = [" ".join(text.split()[:40]) for text in texts[:: len(texts) // NOTES][:NOTES]]
    rows = [{"text": text, "patient": str(number)} for number, text in enumerate(short)]
    return store_of(tmp_path_factory.mktemp("words"), load_encoder(study().encoder.base), rows)


def betrayed(notes: NoteStore, learn: Callable[[Encoder], None]) -> float:
    """How well the size of a row's move tells the words of the notes from all others: .5 is not at all, and both 0 and
    1 are perfectly."""
    encoder = load_encoder(study().encoder.base)
    words: torch.nn.Parameter = encoder.body.get_input_embeddings().weight  # type: ignore[assignment]
    before = words.detach().clone()
    learn(encoder)
    moved = (words.detach() - before).norm(dim=1).numpy()
    in_notes = np.unique(np.concatenate([notes.tokens(i) for i in range(len(notes))]))
    others = np.setdiff1d(np.arange(len(moved)), [*in_notes, *encoder.tokenizer.all_special_ids])
    assert 200 < len(in_notes) < 1000
    return auc(moved[in_notes], moved[others])


def test_a_plain_update_betrays_words(some: NoteStore) -> None:
    plan = study()

    def learn(encoder: Encoder) -> None:
        objective = make_objective(plan, encoder.tokenizer, some)
        train(encoder, objective, some, plan.training, key=(1, 2), first_step=0, steps=STEPS, total_steps=STEPS)

    found = betrayed(some, learn)
    print(f"\nplain: AUC {found:.3f}")
    assert abs(found - 0.5) > 0.25


def test_a_private_update_does_not(some: NoteStore) -> None:
    plan = study(privacy={"epsilon": EPSILON, "delta": DELTA})
    privacy = plan.privacy
    assert privacy is not None
    rate = sampling_rate(plan.training.batch_size, NOTES)
    noise = noise_for(EPSILON, DELTA, rate, STEPS)

    def learn(encoder: Encoder) -> None:
        objective = make_objective(plan, encoder.tokenizer, some)
        units = units_of(some, usable(objective, some, "train"), "patient")
        mechanism = Mechanism(noise, rate, key_of("words"))
        train_privately(
            encoder, objective, some, None, units, plan.training, privacy, mechanism,
            first_step=0, steps=STEPS, total_steps=STEPS,
        )  # fmt: skip

    found = betrayed(some, learn)
    print(f"\nepsilon {EPSILON:g} (noise {noise}): AUC {found:.3f}")
    assert abs(found - 0.5) < 0.08  # six standard deviations of chance
