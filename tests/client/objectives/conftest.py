"""An encoder without dropout: its loss is a function of the batch alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.encoder import Encoder, load_encoder


@pytest.fixture(scope="session")
def still_base(tmp_path_factory: pytest.TempPathFactory, make_base: Callable[..., Path]) -> str:
    return str(make_base(tmp_path_factory.mktemp("still") / "base", "bert", dropout=0.0))


@pytest.fixture
def still(still_base: str) -> Encoder:
    """A tiny BERT without dropout, its own for each test."""
    encoder = load_encoder(still_base)
    encoder.model.train()
    return encoder
