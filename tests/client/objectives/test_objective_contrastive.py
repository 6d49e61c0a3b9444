"""The contrastive losses: against their formulas written out, and against other people's code."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn import functional

from client.objectives.contrastive import nt_xent, supervised_contrastive


def vectors(rows: int, seed: int = 0, width: int = 6) -> torch.Tensor:
    """Of very different lengths, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * 10 + 0.1
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) * scale


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def written_out(anchors: torch.Tensor, positives: torch.Tensor, t: float, apart: torch.Tensor | None = None) -> float:
    """NT-Xent, one vector after another: the formula of METHOD section 1.3."""
    m = len(anchors)
    every = [*anchors, *positives]
    total = 0.0
    for i in range(2 * m):
        j = (i + m) % (2 * m)
        pulled = math.exp(cosine(every[i], every[j]) / t)
        pushed = sum(
            math.exp(cosine(every[i], every[k]) / t)
            for k in range(2 * m)
            if k % m != i % m and (apart is None or bool(apart[i % m, k % m]))
        )
        total += -math.log(pulled / (pulled + pushed))
    return total / (2 * m)


@pytest.mark.parametrize("t", [0.05, 0.5])
@pytest.mark.parametrize("m", [1, 2, 7])
def test_nt_xent_is_its_formula(m: int, t: float) -> None:
    anchors, positives = vectors(m), vectors(m) + vectors(m, 1)
    assert float(nt_xent(anchors, positives, t)) == pytest.approx(written_out(anchors, positives, t), abs=1e-12)


def test_nt_xent_is_that_of_simclr() -> None:
    """Chen et al. 2020 as it is usually programmed: all 2N views in one list, its similarities without the diagonal,
    the positive put first."""
    a, b, t = vectors(9), vectors(9) + vectors(9, 1), 0.1
    z = functional.normalize(torch.cat([a, b]), dim=1)
    similar = z @ z.T
    labels = torch.cat([torch.arange(9)] * 2)
    same = labels[:, None] == labels[None]
    off = ~torch.eye(18, dtype=torch.bool)
    same, similar = same[off].view(18, 17), similar[off].view(18, 17)
    logits = torch.cat([similar[same].view(18, 1), similar[~same].view(18, 16)], dim=1) / t
    theirs = functional.cross_entropy(logits, torch.zeros(18, dtype=torch.long))
    torch.testing.assert_close(nt_xent(a, b, t), theirs)


def test_nt_xent_is_that_of_sentence_transformers() -> None:
    """With the anchors' own similarities in one softmax with the rest, theirs is one of our two directions."""
    a, b = vectors(8), vectors(8) + vectors(8, 1)
    model = torch.nn.Identity()  # no model: the embeddings are given
    loss = MultipleNegativesRankingLoss(model, scale=20.0, directions=("query_to_doc", "query_to_query"))  # type: ignore[arg-type]
    none = torch.empty(0)
    theirs = (loss.compute_loss_from_embeddings([a, b], none) + loss.compute_loss_from_embeddings([b, a], none)) / 2
    torch.testing.assert_close(nt_xent(a, b, 0.05), theirs)


def test_those_that_are_not_apart_are_no_negatives() -> None:
    anchors, positives = vectors(6), vectors(6) + vectors(6, 1)
    apart = torch.ones(6, 6, dtype=torch.bool)
    apart[1, 4] = apart[4, 1] = apart[0, 2] = apart[2, 0] = False
    found = float(nt_xent(anchors, positives, 0.5, apart))
    assert found == pytest.approx(written_out(anchors, positives, 0.5, apart), abs=1e-12)
    assert found < float(nt_xent(anchors, positives, 0.5)) - 1e-3


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_positive_is_one_whatever_the_diagonal_says(diagonal: bool) -> None:
    anchors, positives = vectors(4), vectors(4, 1)
    apart = torch.ones(4, 4, dtype=torch.bool).fill_diagonal_(diagonal)
    assert nt_xent(anchors, positives, 0.1, apart) == nt_xent(anchors, positives, 0.1)


@pytest.mark.parametrize("m", [1, 5])
def test_with_nothing_to_be_apart_from_there_is_no_loss(m: int) -> None:
    anchors, positives = vectors(m).requires_grad_(), vectors(m, 1).requires_grad_()
    loss = nt_xent(anchors, positives, 0.05, torch.zeros(m, m, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert anchors.grad is not None and positives.grad is not None
    assert not anchors.grad.any() and not positives.grad.any()


def test_the_gradient_of_nt_xent() -> None:
    apart = torch.ones(4, 4, dtype=torch.bool)
    apart[0, 3] = apart[3, 0] = False
    a, b = vectors(4).requires_grad_(), vectors(4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, 0.5, apart), (a, b))


def supcon_written_out(z: torch.Tensor, classes: list[int], t: float) -> float:
    """METHOD section 1.4, one note after another, averaged over the notes that have a positive."""
    losses = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and classes[p] == classes[i]]
        if positives:
            below = sum(math.exp(cosine(z[i], z[a]) / t) for a in range(len(z)) if a != i)
            losses.append(-sum(math.log(math.exp(cosine(z[i], z[p]) / t) / below) for p in positives) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("t", [0.1, 1.0])
@pytest.mark.parametrize("classes", [[0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 2, 7, 2, 2, 9], [3] * 6])
def test_supervised_contrastive_is_its_formula(classes: list[int], t: float) -> None:
    z = vectors(len(classes))
    found = float(supervised_contrastive(z, torch.tensor(classes), t))
    assert found == pytest.approx(supcon_written_out(z, classes, t), abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_notes_that_are_all_alone_give_nothing(count: int) -> None:
    z = vectors(count).requires_grad_()
    loss = supervised_contrastive(z, torch.arange(count), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0 and z.grad is not None and not z.grad.any()  # NaN would be any


def test_a_note_that_is_alone_is_a_negative_all_the_same() -> None:
    z, classes = vectors(5), torch.tensor([0, 0, 1, 1, 2])
    with_it = supervised_contrastive(z, classes, 0.5)
    assert float(with_it) > float(supervised_contrastive(z[:4], classes[:4], 0.5))


def test_the_gradient_of_supervised_contrastive() -> None:
    z, classes = vectors(6).requires_grad_(), torch.tensor([0, 1, 1, 0, 0, 5])
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, classes, 0.5), (z,))


def test_both_are_exact_where_the_encoder_computes_in_bfloat16() -> None:
    """Multiplied in bfloat16, a cosine is wrong in its third digit, and a logit twenty times as much."""
    a, b, classes = vectors(16).float(), vectors(16, 1).float(), torch.arange(16) // 2
    exact = nt_xent(a, b, 0.05), supervised_contrastive(a, classes, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nt_xent(a, b, 0.05), supervised_contrastive(a, classes, 0.05)
        assert (a @ b.T).dtype == torch.bfloat16
    assert found == exact and all(loss.dtype == torch.float32 for loss in found)
    low = nt_xent(a.bfloat16(), b.bfloat16(), 0.05)
    assert low.dtype == torch.float32 and low.isfinite()
