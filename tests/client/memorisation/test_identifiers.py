"""Identifiers: which are found, what is made of them, and on how many patients a figure stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from private_helpers import store_of

from client.memorisation.identifiers import identifier_completion, identifiers
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.training import train
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan

KEY = (3, 5)
WORDS = "pain bay calm dizzy knee neck toes warm cough rash stool urine ankle fever back".split()  # noqa: SIM905


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Seen 04/04/2023, then 2023-04-08.", ["04/04/2023", "2023-04-08"]),
        ("on 3 May 2024 again", ["3 May 2024"]),
        ("Tel 020 7946 0018 or +44 (0)20 7946-0018", ["020 7946 0018", "+44 (0)20 7946-0018"]),
        ("MRN 48151623, ref AB-123456", ["48151623", "AB-123456"]),
        ("BP 111/78 mmHg, HR 78 bpm, temp 37.1 C, 45 yo, 256 ml", []),
    ],
)
def test_what_is_an_identifier(text: str, found: list[str]) -> None:
    assert [text[start:end].strip() for start, end in identifiers(text)] == found


def test_a_hostile_text_takes_no_time() -> None:
    assert identifiers("1" * 50_000 + "(" * 50_000 + " 1" * 20_000)


def hospital(
    folder: Path, encoder: Encoder, patients: int, per_patient: int = 1, numbers: tuple[str, str] | None = None
) -> NoteStore:
    """Notes with record numbers: half of the patients train, a quarter each is dev and test."""
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for patient in range(patients):
        who, number = " ".join(rng.choice(WORDS, 4)), str(rng.integers(10**5, 10**6))
        if numbers:
            number = numbers[patient % 4 > 1]
        rows += [
            {"text": f"{who} with record {number} seen on ward {i}", "patient": f"p{patient}"}
            for i in range(per_patient)
        ]
    store = store_of(folder, encoder, rows)
    side = np.array([("train", "train", "dev", "test")[int(p[1:]) % 4] for p in store.column("patient")], dtype=object)
    return store.with_columns(split=side)


def test_nothing_is_said_of_fewer_than_twenty_patients(tmp_path: Path, encoder: Encoder) -> None:
    few = hospital(tmp_path / "few", encoder, 36, per_patient=4)
    assert identifier_completion(encoder, few, 32, KEY, 256) is None
    enough = identifier_completion(encoder, hospital(tmp_path / "enough", encoder, 40), 32, KEY, 256)
    assert enough is not None and enough.train_notes == enough.held_out_notes == 20


def test_an_untrained_encoder_knows_neither_side(tmp_path: Path, encoder: Encoder) -> None:
    found = identifier_completion(encoder, hospital(tmp_path, encoder, 120), 32, KEY, 256)
    assert found is not None and found.train_completed == found.held_out_completed == 0
    assert found.completed.low is None  # nothing varies
    assert found.likelihood.low <= found.likelihood.value <= found.likelihood.high
    assert abs(found.likelihood.value) < 0.5


def test_one_that_learnt_its_notes_by_heart_shows_it(
    tmp_path: Path, encoder: Encoder, make_plan: Callable[..., StudyPlan]
) -> None:
    """Patients in training have one number, the others another: 250 steps are enough to know the first."""
    notes = hospital(tmp_path, encoder, 60, numbers=("4711", "9362"))
    plan = make_plan(
        objective={"kind": "mlm", "mask_probability": 0.4},
        training={"steps_per_round": 250, "batch_size": 16, "learning_rate": 6e-3},
    )
    objective = make_objective(plan, encoder.tokenizer, notes)
    before = identifier_completion(encoder, notes, 32, KEY, 256)
    train(encoder, objective, notes, plan.training, key=KEY, first_step=0, steps=250, total_steps=250)
    after = identifier_completion(encoder, notes, 32, KEY, 256)
    assert before is not None and before.train_completed == before.held_out_completed == 0
    assert after is not None and after.train_completed > 0.3 and after.held_out_completed < 0.1
    assert after.completed.low > 0 and after.likelihood.low > 1


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_every_family_is_read_as_its_tokens_stand(tmp_path: Path, bases: dict[str, str], family: str) -> None:
    encoder = load_encoder(bases[family])
    assert identifier_completion(encoder, hospital(tmp_path, encoder, 40), 32, KEY, 256) is not None
