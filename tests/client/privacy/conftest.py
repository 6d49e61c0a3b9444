"""Notes that are as bad for privacy as notes can be."""

import pytest
from private_helpers import adversarial_notes, store_of

from client.notes.store import NoteStore
from common.encoder import load_encoder


@pytest.fixture(scope="session")
def adversarial(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, str], texts: list[str]) -> NoteStore:
    return store_of(tmp_path_factory.mktemp("adversarial"), load_encoder(bases["bert"]), adversarial_notes(texts))
