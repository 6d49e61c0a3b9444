"""Embeddings in two dimensions, for a map. For simulated notes only: see `common.results.EmbeddingMap`."""

from typing import Literal

import numpy as np
from sklearn.decomposition import PCA

from client.evaluation.probe import check_finite
from client.evaluation.space import centred
from common.errors import MachineError

_UMAP_NEIGHBOURS = 15  # umap-learn's default
_FEWEST_FOR_UMAP = 4  # below this its spectral start fails


def plane(embeddings: np.ndarray, method: Literal["pca", "umap"], seed: int) -> tuple[np.ndarray, list[float]]:
    """Coordinates of each note, and what they explain.

    PCA keeps the two directions of largest variance: distances on the map are true as far as `explained` says. UMAP
    (McInnes et al. 2018; by cosine) keeps who is near whom; the sizes of its clusters and the distances between them
    mean little. Fewer than four notes get their principal components under either.

    Args:
        embeddings: [n, d].
        method: "pca" or "umap".
        seed: of UMAP. Chance has no part in PCA.

    Returns:
        [n, 2] coordinates, and the share of the variance (0 to 1) on each axis: two for PCA, none for UMAP. Notes that
        do not differ are all at 0 under PCA, with shares of 0.

    Raises:
        StudyError: `embeddings-not-finite`: the encoder gave NaN or infinity.
        MachineError: `umap-missing`: umap-learn cannot be imported.
    """
    check_finite(embeddings)
    if method == "pca":
        return _principal(embeddings)
    umap_class = _umap()
    n = len(embeddings)
    if n < _FEWEST_FOR_UMAP:
        return _principal(embeddings)[0], []
    # One job, which a fixed seed forces anyway, with a warning.
    mapper = umap_class(n_neighbors=min(_UMAP_NEIGHBOURS, n - 1), metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(mapper.fit_transform(embeddings), dtype=np.float64), []


def _principal(embeddings: np.ndarray) -> tuple[np.ndarray, list[float]]:
    coordinates, explained = np.zeros((len(embeddings), 2)), [0.0, 0.0]
    x = centred(embeddings)
    if x is not None:
        axes = min(2, x.shape[1])
        pca = PCA(n_components=axes, svd_solver="full")  # the default draws at random where there are many notes
        coordinates[:, :axes] = pca.fit_transform(x)
        explained[:axes] = pca.explained_variance_ratio_.tolist()
    return coordinates, explained


def _umap() -> type:
    try:
        from umap import UMAP  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MachineError(
            "umap-missing",
            f"A map by UMAP needs umap-learn, which cannot be imported ({error}).",
            'Install it: pip install "fednotes[umap]", or choose PCA.',
        ) from None
    return UMAP
