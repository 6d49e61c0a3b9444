"""Two contrastive losses on embeddings, as pure mathematics: NT-Xent on pairs, supervised contrastive on classes.

Both are computed in single precision at the least, also where the encoder computes in bfloat16: that rounds a cosine to
three digits, and a temperature of 0.05 makes twenty times as much of it.
"""

import torch
from torch.nn import functional


def nt_xent(
    anchors: torch.Tensor, positives: torch.Tensor, temperature: float, apart: torch.Tensor | None = None
) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020), in both directions, averaged over the 2M vectors.

    Each anchor and its positive are drawn together; the other 2(M - 1) vectors are pushed away from both:
    `-log( exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t)) )` with cosine similarity s.

    Args:
        anchors: [M, H], not normalised.
        positives: [M, H], the positive of each anchor.
        apart: [M, M] symmetric, of bool: whether anchors i and j may be negatives for each other; None for all.

    Returns:
        A scalar, in nats. Where nothing is left to be apart from, it is 0.
    """
    pairs = len(anchors)
    logits = _cosines(torch.cat([anchors, positives])) / temperature
    barred = torch.eye(2 * pairs, dtype=torch.bool, device=logits.device)
    if apart is not None:
        # A positive is never barred from its own anchor, whatever `apart` says of the diagonal.
        near = ~apart & ~torch.eye(pairs, dtype=torch.bool, device=logits.device)
        barred = barred | near.repeat(2, 2)
    targets = torch.arange(2 * pairs, device=logits.device).roll(pairs)
    return functional.cross_entropy(logits.masked_fill(barred, -torch.inf), targets)


def supervised_contrastive(embeddings: torch.Tensor, classes: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, L_out; METHOD section 1.4), averaged over notes with a positive.

    `L_i = -1/|P(i)| sum_{p in P(i)} log( exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t) )`.

    Args:
        embeddings: [N, H], not normalised.
        classes: [N] integers.

    Returns:
        A scalar, in nats; 0 where no note has another of its class.
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    logits = (_cosines(embeddings) / temperature).masked_fill(itself, -torch.inf)
    alike = (classes[:, None] == classes[None]) & ~itself
    log_p = functional.log_softmax(logits, dim=1).masked_fill(~alike, 0.0)
    count = alike.sum(dim=1)
    return -(log_p.sum(dim=1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def _cosines(vectors: torch.Tensor) -> torch.Tensor:
    """Cosine similarity [N, N] of vectors [N, H]."""
    with torch.autocast(vectors.device.type, enabled=False):
        z = functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
        return z @ z.T
