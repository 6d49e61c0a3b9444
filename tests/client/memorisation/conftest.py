"""Sites that can be asked what the encoder knows by heart, and a plan that learns canaries so."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

import client.app
from client.notes.source import Columns, NotesSource
from client.site import Policy
from common import memorisation, messages
from common.messages import Tensors
from common.plan import StudyPlan
from server.base import base_tensors

RUN = "0123456789abcdef" * 2
Ask = Callable[..., Message]


@pytest.fixture
def ask(make_message: Callable[..., Message], site_context: Callable[[Path], Context]) -> Ask:
    """Send a site a training request, or the question what the encoder knows by heart."""

    def send(folder: Path, kind: str, plan: StudyPlan, number: int = 1, arrays: Tensors | None = None) -> Message:
        sent = base_tensors(plan) if arrays is None else arrays
        if kind == "train":
            config = messages.request_config(plan, RUN)
            config["server-round"] = number
            content = RecordDict({"arrays": messages.packed(sent), "config": config})
        else:
            content = memorisation.request_content(plan, RUN, number, sent)
        return client.app.app(make_message(content, kind), site_context(folder))

    return send


@pytest.fixture
def few(make_site: Callable[..., Path], hospitals: dict[str, np.ndarray]) -> Callable[..., Path]:
    """A site of 40 notes."""
    return lambda **settings: make_site("northgate", hospitals["northgate"][:40], **settings)


@pytest.fixture
def numbered(make_site: Callable[..., Path], tmp_path: Path) -> Callable[[str, Policy], Path]:
    """A site whose notes have record numbers: of 40 patients in training, and 40 held out."""
    file = tmp_path / "numbered.jsonl"
    rng = np.random.default_rng(4)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    notes = [
        {
            # words that nobody wrote, so that no note is taken for a copy of another
            "text": " ".join(["".join(rng.choice(letters, 5)) for _ in range(8)] + [f"record {10**6 + 7919 * i}"]),
            "patient": f"p{i}",
            "split": "train" if i % 2 else "dev",
        }
        for i in range(80)
    ]
    file.write_text("".join(json.dumps(note) + "\n" for note in notes), encoding="utf-8")
    source = NotesSource(source=str(file), columns=Columns(split="split"))
    return lambda name, policy: make_site(name, np.arange(80), notes=source, policy=policy)


@pytest.fixture
def overfitting(make_plan: Callable[..., StudyPlan]) -> Callable[..., StudyPlan]:
    """A plan that learns its canaries by heart."""

    def make(**sections: dict) -> StudyPlan:
        return make_plan(
            **{
                "objective": {"kind": "mlm", "mask_probability": 0.4},
                "training": {"steps_per_round": 200, "batch_size": 16, "learning_rate": 8e-3, "schedule": "constant"},
                "federation": {"rounds": 1},
                "release": {"canaries": 16, "repeats": 20},
            }
            | sections
        )

    return make
