"""The encoder: every family loads, pools, predicts and is saved as the libraries it must agree with do it."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from common.encoder import (
    Encoder,
    load_encoder,
    load_tokenizer,
    mean_pool,
    sequence_limit,
    tensors_digest,
)
from common.errors import InputError

SHARES = ("encoder", "encoder+mlm-head")


@pytest.fixture
def loaded(bases: dict[str, str], family: str) -> Encoder:
    encoder = load_encoder(bases[family])
    encoder.model.eval()
    return encoder


@pytest.fixture
def batch(loaded: Encoder, texts: list[str]) -> dict[str, torch.Tensor]:
    """Five texts of very different lengths, padded."""
    some = [text[: 20 * k] for k, text in enumerate(texts[:5], 1)]
    tokens = loaded.tokenizer(some, padding=True, truncation=True, max_length=40, return_tensors="pt")
    assert tokens["attention_mask"].sum(1).unique().numel() > 2
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in encoder.tensors().items()}


def decoder_weight(encoder: Encoder) -> torch.Tensor:
    return encoder.model.get_output_embeddings().weight


def refused(base: Path | str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_encoder(str(base))
    return caught.value


def test_mean_pool_is_the_mean_of_the_real_tokens() -> None:
    hidden = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 7, [1] * 3 + [0] * 4, [1] + [0] * 6, [0] * 7])
    pooled = mean_pool(hidden, mask)
    for row in range(3):
        real = [hidden[row, t] for t in range(7) if mask[row, t]]
        torch.testing.assert_close(pooled[row], sum(real) / len(real))
    assert (pooled[3] == 0).all()


def test_every_family_has_its_shapes(loaded: Encoder, batch: dict[str, torch.Tensor], family: str) -> None:
    rows, width = batch["input_ids"].shape
    assert loaded.model.config.model_type == family and not loaded.fresh_head and loaded.hidden_size == 32
    with torch.no_grad():
        assert loaded.hidden(**batch).shape == (rows, width, 32)
        assert loaded.embed(**batch).shape == (rows, 32)
        assert loaded.mlm_logits(torch.zeros(3, 32)).shape == (3, len(loaded.tokenizer))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in loaded.tensors().values())
    assert sequence_limit(loaded.model) == 64


def test_the_longest_sequence_is_read(loaded: Encoder) -> None:
    most = sequence_limit(loaded.model)
    ids = torch.full((1, most), 7)
    with torch.no_grad():
        assert loaded.hidden(ids, torch.ones_like(ids)).isfinite().all()


def test_pooling_is_blind_to_padding(loaded: Encoder, batch: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        together = loaded.embed(**batch)
        for row, mask in enumerate(batch["attention_mask"]):
            n = int(mask.sum())
            alone = loaded.embed(batch["input_ids"][row : row + 1, :n], mask[None, :n])
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_the_whole_model(
    loaded: Encoder, batch: dict[str, torch.Tensor], bases: dict[str, str], family: str
) -> None:
    reference = AutoModelForMaskedLM.from_pretrained(bases[family]).eval()
    with torch.no_grad():
        theirs = reference(**batch).logits
        ours = loaded.mlm_logits(loaded.hidden(**batch).flatten(0, 1)).view_as(theirs)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-6, rtol=1e-5)
    assert theirs[real].std() > 0.01


@pytest.mark.parametrize("head", [True, False])
def test_the_decoder_is_the_embedding(family: str, head: bool, make_base: Callable[..., Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(make_base(tmp_path / "base", family, head=head)))
    embedding = encoder.model.get_input_embeddings().weight
    assert decoder_weight(encoder).data_ptr() == embedding.data_ptr()
    assert sum(p.data_ptr() == embedding.data_ptr() for p in encoder.tensors().values()) == 1
    encoder.load({n: p + 1 for n, p in weights(encoder).items() if p.shape == embedding.shape})
    assert torch.equal(decoder_weight(encoder), embedding)


def test_a_base_without_a_head_gets_one_from_the_seed(
    family: str, make_base: Callable[..., Path], tmp_path: Path, bases: dict[str, str]
) -> None:
    base = str(make_base(tmp_path / "base", family, head=False))
    state = torch.get_rng_state()
    one, same, other = (load_encoder(base, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.fresh_head
    head, body = one.private("encoder"), one.shared("encoder")
    whole = load_encoder(bases[family], seed=6).tensors()
    assert all(torch.equal(p, same.tensors()[n]) for n, p in one.tensors().items())
    assert all(torch.equal(p, other.tensors()[n]) and torch.equal(p, whole[n]) for n, p in body.items())
    assert any(not torch.equal(p, other.tensors()[n]) for n, p in head.items())
    assert not any(torch.equal(p, whole[n]) for n, p in head.items() if p.ndim > 1)
    assert any(n.endswith("bias") and p.shape == (len(one.tokenizer),) and (p == 0).all() for n, p in head.items())


def test_the_seed_is_for_fresh_heads_only(bases: dict[str, str]) -> None:
    one, other = (load_encoder(bases["bert"], seed) for seed in (1, 2))
    assert tensors_digest(one.tensors().items()) == tensors_digest(other.tensors().items())


@pytest.mark.parametrize("share", SHARES)
def test_what_travels_and_what_stays_are_everything(loaded: Encoder, share: str) -> None:
    travels, stays = loaded.shared(share), loaded.private(share)
    assert not set(travels) & set(stays) and set(travels) | set(stays) == set(loaded.tensors())
    body = {id(p) for p in loaded.body.parameters()}
    if share == "encoder":
        assert {id(p) for p in travels.values()} == body and stays
    else:
        assert not stays and list(travels) == list(loaded.tensors())
    assert sum(p.numel() for p in loaded.tensors().values()) == sum(p.numel() for p in loaded.model.parameters())


def test_load_works_in_place(loaded: Encoder) -> None:
    before = {name: (p, p.data_ptr()) for name, p in loaded.tensors().items()}
    new = {name: p.numpy() + 1 for name, p in weights(loaded).items()}
    loaded.load(new)
    for name, p in loaded.tensors().items():
        assert p is before[name][0] and p.data_ptr() == before[name][1] and p.requires_grad
        assert np.array_equal(p.detach().numpy(), new[name])
    with pytest.raises(KeyError):
        loaded.load({"no.such.tensor": np.zeros(1, np.float32)})


def test_load_refuses_another_shape(encoder: Encoder) -> None:
    """A copy would spread one number over a whole tensor without a word."""
    name, p = next((n, p) for n, p in encoder.tensors().items() if p.ndim == 2)
    with pytest.raises((ValueError, RuntimeError)):
        encoder.load({name: np.zeros((1, 1), np.float32)})
    assert p.abs().sum() > 0


def test_the_digest_tells_names_bytes_and_order() -> None:
    a, b = ("a", np.float32([1, 2])), ("b", np.float32([3]))
    digest = tensors_digest([a, b])
    assert digest == tensors_digest([("a", torch.tensor([1.0, 2.0])), ("b", torch.tensor([3.0]))])
    assert len({digest, tensors_digest([b, a]), tensors_digest([a]), tensors_digest([("c", a[1]), b])}) == 4


def test_a_loaded_encoder_is_float32(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "bert")
    save_file(
        {n: t.half() for n, t in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert {p.dtype for p in load_encoder(str(folder)).tensors().values()} == {torch.float32}


# What is refused.


def test_another_family_is_refused(tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1, n_positions=8)).save_pretrained(
        tmp_path / "gpt"
    )
    tokenizers["bert"].save_pretrained(tmp_path / "gpt")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text('{"model_type": "t5"}')
    for folder, name in (("gpt", "gpt2"), ("t5", "t5")):
        error = refused(tmp_path / folder)
        assert (
            error.code == "base-unsupported" and f"family {name}" in error.message and "modernbert" in error.next_step
        )


@pytest.mark.parametrize(
    "base",
    [
        "packaged:other",
        "/no/such/folder",
        "a/b/c",
        "no such model",
        "no-such-model",
        "nobody/no-such-model",
        "../up",
        "",
    ],
)
def test_an_unknown_base_is_refused(base: str) -> None:
    error = refused(base)
    assert error.code == "base-unknown" and f'"{base}"' in error.message
    with pytest.raises(InputError):
        load_tokenizer(base)


def test_an_empty_folder_is_no_base(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "base-unknown"


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def _plant(folder: Path, name: str, mark: Path) -> None:
    (folder / name).write_bytes(pickle.dumps(_Bomb(mark)))


def test_the_planted_pickle_would_go_off(tmp_path: Path) -> None:
    _plant(tmp_path, "x", tmp_path / "went-off")
    pickle.loads((tmp_path / "x").read_bytes())  # noqa: S301  # our own, to see that the tests below can fail
    assert (tmp_path / "went-off").is_dir()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00001.bin"])
def test_pickled_weights_are_refused_and_never_run(make_base: Callable[..., Path], tmp_path: Path, name: str) -> None:
    folder, mark = make_base(tmp_path / "base", "bert"), tmp_path / "went-off"
    (folder / "model.safetensors").unlink()
    _plant(folder, name, mark)
    if "-of-" in name:
        shards = {"metadata": {}, "weight_map": {"bert.embeddings.word_embeddings.weight": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(shards))
    assert refused(folder).code == "base-unknown" and not mark.exists()


def test_a_pickle_named_as_a_shard_of_safetensors_is_refused_and_never_run(
    make_base: Callable[..., Path], tmp_path: Path
) -> None:
    folder, mark = make_base(tmp_path / "base", "bert"), tmp_path / "went-off"
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    _plant(folder, "weights.bin", mark)
    shards = {"metadata": {}, "weight_map": dict.fromkeys(names, "weights.bin")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    try:
        assert refused(folder).code == "base-unknown"
    finally:
        assert not mark.exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused_and_never_run(
    make_base: Callable[..., Path], tmp_path: Path
) -> None:
    folder, mark = make_base(tmp_path / "base", "bert"), tmp_path / "went-off"
    _plant(folder, "model.safetensors", mark)
    try:
        assert refused(folder).code == "base-unknown"
    finally:
        assert not mark.exists()


def test_code_that_comes_with_a_base_is_never_run(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder, mark = make_base(tmp_path / "base", "bert"), tmp_path / "went-off"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    for file, classes in (
        ("config.json", {"AutoConfig": "evil.Config", "AutoModelForMaskedLM": "evil.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}),
    ):
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | {"auto_map": classes}))
    try:
        load_encoder(str(folder))
    except InputError as error:
        assert error.code in ("base-unknown", "base-unsupported")
    assert not mark.exists()


def test_damaged_weights_are_refused(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "bert")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert refused(folder).code == "base-unknown"


def test_weights_of_another_shape_are_refused(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    assert refused(folder).code in ("base-unknown", "base-incomplete")


def test_a_base_without_some_encoder_weights_is_refused(
    family: str, make_base: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_base(tmp_path / "base", family)
    tensors = load_file(folder / "model.safetensors")
    gone = next(n for n in tensors if ".1." in n and n.endswith("weight"))
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    error = refused(folder)
    assert error.code == "base-incomplete" and gone in error.message and "lacks 1 " in error.message


def test_a_tokeniser_without_a_mask_is_refused(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("mask_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert refused(folder).code == "base-unsupported"


def test_a_tokeniser_with_more_tokens_than_the_model_is_refused(
    make_base: Callable[..., Path], tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> None:
    """Otherwise an id beyond the embedding ends the first round with an IndexError."""
    folder = make_base(tmp_path / "base", "bert", vocab_size=len(tokenizers["bert"]) - 50)
    assert refused(folder).code in ("base-unsupported", "base-incomplete", "base-unknown")


def test_a_base_without_a_tokeniser_is_refused(make_base: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "bert")
    for file in folder.glob("*token*"):
        file.unlink()
    assert refused(folder).code in ("base-unknown", "base-unsupported")


# What is saved.


@pytest.mark.parametrize("which", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_saved_encoder_is_the_same_in_both_libraries(
    which: str, bases: dict[str, str], texts: list[str], tmp_path: Path
) -> None:
    encoder = load_encoder(bases[which])
    encoder.load({n: p * 1.5 for n, p in weights(encoder).items()})  # not what the base's folder holds
    encoder.model.eval()
    some = [*texts[::50], texts[7][:15]]
    tokens = encoder.tokenizer(some, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        ours = encoder.embed(tokens["input_ids"], tokens["attention_mask"]).numpy()

    encoder.save(tmp_path / "model", max_length=24)
    sentences = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert sentences.max_seq_length == 24
    assert np.abs(sentences.encode(some) - ours).max() < 1e-6

    model = AutoModel.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        theirs = mean_pool(
            model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state,
            tokens["attention_mask"],
        ).numpy()
    assert np.abs(theirs - ours).max() < 1e-6
    assert np.abs(ours[0] - ours[1]).max() > 1e-3
    assert not list((tmp_path / "model").rglob("*.bin")) and list((tmp_path / "model").rglob("*.safetensors"))


def test_saving_leaves_the_encoder_as_it_was(encoder: Encoder, tmp_path: Path) -> None:
    before = tensors_digest(encoder.tensors().items())
    encoder.save(tmp_path / "model", max_length=24)
    assert tensors_digest(encoder.tensors().items()) == before
    shutil.rmtree(tmp_path / "model")


def test_a_saved_encoder_is_a_base_again(bases: dict[str, str], family: str, tmp_path: Path) -> None:
    encoder = load_encoder(bases[family])
    encoder.save(tmp_path / "model", max_length=24)
    again = load_encoder(str(tmp_path / "model"), seed=1)
    assert again.fresh_head
    body = again.shared("encoder")
    assert all(torch.equal(p, body[n]) for n, p in encoder.shared("encoder").items())
