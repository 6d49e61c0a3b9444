"""What the tests share: tiny real bases of all four families, synthetic notes, sites, plans, Flower messages, and the
`fednotes` command in a process of its own.

Nothing here is a stand-in: bases are loaded by `load_encoder`, notes are read by the intake, sites opened from disk.
"""

import io
import os
import signal
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test asks a model hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from client.app import SITE_FOLDER
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.site import Policy, SiteConfig
from common.encoder import FAMILIES, Encoder, load_encoder, load_tokenizer
from common.plan import StudyPlan
from fednotes import main
from simulations.partition import write_site
from simulations.synthetic_notes import synthetic_notes, write_jsonl

torch.set_num_threads(1)

NOTES, HOSPITALS, VOCABULARY, POSITIONS = 300, 3, 400, 64
SPLIT_KEY = b"the tests' split key"
_WORDPIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BYTES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def pytest_configure() -> None:
    """Where a shell started pytest in the background SIGINT is ignored, and would be by what tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _wordpiece(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(_WORDPIECE), continuing_subword_prefix="##"
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    pad, unknown, first, last, mask = _WORDPIECE
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        model_max_length=POSITIONS,
    )


def _byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(_BYTES), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    first, pad, last, unknown, mask = _BYTES
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=first,
        cls_token=first,
        eos_token=last,
        sep_token=last,
        pad_token=pad,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=POSITIONS,
    )


def _config(family: str, vocabulary: int, dropout: float) -> PreTrainedConfig:
    same: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": POSITIONS}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    bytes_ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    match family:
        case "bert":
            return BertConfig(**same, **sizes, **drops)
        case "roberta":
            # Positions count from pad + 1 = 2.
            longer = same | {"max_position_embeddings": POSITIONS + 2}
            return RobertaConfig(**longer, **sizes, **drops, **bytes_ids, type_vocab_size=1)
        case "distilbert":
            return DistilBertConfig(
                **same, dim=32, n_layers=2, n_heads=2, hidden_dim=48, dropout=dropout, attention_dropout=dropout
            )
        case _:
            return ModernBertConfig(
                **same,
                **sizes,
                **bytes_ids,
                cls_token_id=0,
                sep_token_id=2,
                embedding_dropout=dropout,
                mlp_dropout=dropout,
                attention_dropout=dropout,
                local_attention=16,
            )


_MODELS: dict[str, Callable[[Any], PreTrainedModel]] = {
    "bert": BertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "distilbert": DistilBertForMaskedLM,
    "modernbert": ModernBertForMaskedLM,
}


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [note["text"] for note in synthetic_notes(notes=NOTES, hospitals=HOSPITALS)]


@pytest.fixture(scope="session")
def tokenizers(texts: list[str]) -> dict[str, PreTrainedTokenizerFast]:
    """A tokenizer for each family, learned from the notes."""
    pieces, by_bytes = _wordpiece(texts), _byte_level(texts)
    return {"bert": pieces, "distilbert": pieces, "roberta": by_bytes, "modernbert": by_bytes}


@pytest.fixture(scope="session")
def make_base(tokenizers: dict[str, PreTrainedTokenizerFast]) -> Callable[..., Path]:
    """Save a tiny base of a family into a folder: with its MLM head, or with `head=False` its body alone."""

    def make(folder: Path, family: str, head: bool = True, dropout: float = 0.1, **settings: Any) -> Path:
        config = _config(family, len(tokenizers[family]), dropout)
        for name, value in settings.items():
            setattr(config, name, value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(FAMILIES.index(family))
            model = _MODELS[family](config)
            with torch.no_grad():  # a fresh bias is zero, and would hide that it was lost
                for name, parameter in model.named_parameters():
                    if name.endswith("bias"):
                        parameter.normal_(std=0.02)
        (model if head else model.base_model).save_pretrained(folder)
        tokenizers[family].save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory, make_base: Callable[..., Path]) -> dict[str, str]:
    """Family -> a folder that `load_encoder` reads. Tests must not write there."""
    root = tmp_path_factory.mktemp("bases")
    return {family: str(make_base(root / family, family)) for family in FAMILIES}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(bases: dict[str, str]) -> Encoder:
    """A tiny BERT, its own for each test."""
    return load_encoder(bases["bert"])


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> NotesSource:
    """A few hundred notes of three hospitals, in a file."""
    path = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    write_jsonl(path, notes=NOTES, hospitals=HOSPITALS)
    return NotesSource(source=str(path))


@pytest.fixture(scope="session")
def prepared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def stores(bases: dict[str, str], source: NotesSource, prepared_cache: Path) -> dict[str, NoteStore]:
    """Family -> the notes, prepared with its tokenizer."""
    return {f: prepare(source, load_tokenizer(base), SPLIT_KEY, prepared_cache) for f, base in bases.items()}


@pytest.fixture(scope="session")
def notes(stores: dict[str, NoteStore]) -> NoteStore:
    """The notes as BERT's tokenizer cuts them."""
    return stores["bert"]


@pytest.fixture(scope="session")
def hospitals(notes: NoteStore) -> dict[str, np.ndarray]:
    """Hospital -> the rows of its notes."""
    site = notes.column("site")
    return {name: np.flatnonzero(site == name) for name in sorted(set(site))}


@pytest.fixture
def make_site(tmp_path: Path, source: NotesSource, prepared_cache: Path) -> Callable[..., Path]:
    """Write the folder of a site that has some rows of the notes."""

    def make(name: str, rows: np.ndarray, folder: str | None = None, **settings: Any) -> Path:
        given = {"split_key": SPLIT_KEY.hex(), "cache": prepared_cache, "notes": source}
        settings = given | {"policy": Policy(require_approval=False)} | settings
        return write_site(tmp_path / "sites" / (folder or name), SiteConfig(name=name, **settings), rows)

    return make


@pytest.fixture
def sites(make_site: Callable[..., Path], hospitals: dict[str, np.ndarray]) -> dict[str, Path]:
    """Name -> folder of three small sites."""
    return {name: make_site(name, rows) for name, rows in hospitals.items()}


@pytest.fixture
def make_plan(bases: dict[str, str]) -> Callable[..., StudyPlan]:
    """A small plan on the tiny BERT, with sections changed: `make_plan(federation={"rounds": 3})`."""

    def make(**sections: dict[str, Any]) -> StudyPlan:
        plan: dict[str, dict[str, Any]] = {
            "study": {"name": "test", "seed": 3},
            "encoder": {"base": bases["bert"], "max_length": 32},
            "training": {"steps_per_round": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
            "federation": {"rounds": 2},
            "evaluation": {"held_out_notes": 8},
        }
        for name, settings in sections.items():
            plan[name] = plan.get(name, {}) | settings
        return StudyPlan.model_validate(plan)

    return make


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No hub and one thread, so that tests are quick; a cache that tests share."""
    cache = tmp_path_factory.mktemp("user-cache")
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FEDNOTES_CACHE": str(cache), "COLUMNS": "120"}


@pytest.fixture
def command() -> list[str]:
    return [sys.executable, "-m", "fednotes"]


@pytest.fixture
def apart(
    environment: dict[str, str], command: list[str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a process of its own and an empty folder; returns what it printed and its exit code."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        line = [*command, *map(str, arguments)]
        return subprocess.run(line, env=environment, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)

    return run


@pytest.fixture
def fednotes(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same in this process, which has imported torch already: for a command itself, `apart` takes seconds more."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        line, code = ["fednotes", *map(str, arguments)], 0
        output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with monkeypatch.context() as changed, redirect_stdout(output), redirect_stderr(errors):
            changed.setattr(sys, "argv", line)
            changed.chdir(cwd)
            for name, value in environment.items():
                changed.setenv(name, value)
            try:
                main()
            except SystemExit as end:
                assert end.code is None or isinstance(end.code, int)
                code = end.code or 0
        said, complained = (stream.buffer.getvalue().decode() for stream in (output, errors))  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(line, code, said, complained)

    return run


@pytest.fixture(autouse=True)
def _flower_task() -> None:
    """Flower's Message() asks for these; the engines set them."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 0, 1, 0


@pytest.fixture
def make_message() -> Callable[..., Message]:
    def make(content: RecordDict | None = None, kind: str = "train", node: int = 2) -> Message:
        return Message(RecordDict() if content is None else content, node, kind)

    return make


@pytest.fixture
def site_context() -> Callable[[Path], Context]:
    """What Flower hands a site's handlers, for a site's folder."""
    return lambda folder: Context(0, 2, {SITE_FOLDER: str(folder)}, RecordDict(), {})
