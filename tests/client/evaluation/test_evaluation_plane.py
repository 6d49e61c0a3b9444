"""Maps in two dimensions. UMAP is tried where the extra is installed; that it is missing is said everywhere."""

import sys

import numpy as np
import pytest
from sklearn.metrics.pairwise import euclidean_distances

from client.evaluation.plane import plane
from common.errors import MachineError, StudyError


def groups(seed: int, n: int = 60, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (np.eye(3, width)[y] * 8 + rng.normal(size=(n, width))).astype(np.float32), y


def test_pca_is_the_projection_on_the_leading_eigenvectors_of_the_covariance():
    x, _ = groups(0)
    coordinates, explained = plane(x, "pca", 0)
    values, vectors = np.linalg.eigh(np.cov(x.T.astype(np.float64)))
    expected = (x - x.mean(axis=0)) @ vectors[:, [-1, -2]]
    assert np.abs(coordinates) == pytest.approx(np.abs(expected), abs=1e-4)  # an axis has no sign
    assert explained == pytest.approx(values[[-1, -2]] / values.sum(), rel=1e-4)
    assert [type(share) for share in explained] == [float, float]


def test_pca_of_a_plane_keeps_every_distance():
    flat = np.random.default_rng(0).normal(size=(30, 2)) * [3, 1]
    turned = flat @ np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0][:2] + 5
    coordinates, explained = plane(turned, "pca", 0)
    assert euclidean_distances(coordinates) == pytest.approx(euclidean_distances(flat), abs=1e-6)
    assert sum(explained) == pytest.approx(1.0)


def test_chance_has_no_part_in_pca():
    x = np.random.default_rng(0).normal(size=(600, 600))  # so large and so even that a randomised solver would show
    one, other = plane(x, "pca", 1), plane(x, "pca", 2)
    assert (one[0] == other[0]).all() and one[1] == other[1]
    assert one[1] == pytest.approx(np.sort(np.linalg.eigvalsh(np.cov(x.T)))[:-3:-1] / np.cov(x.T).trace(), rel=1e-6)


def test_pca_where_there_is_little_to_show():
    for x in (np.zeros((0, 4)), np.ones((1, 4)), np.full((5, 4), 0.1)):
        coordinates, explained = plane(x, "pca", 0)
        assert coordinates.shape == (len(x), 2) and not coordinates.any() and explained == [0.0, 0.0]
    coordinates, explained = plane(np.array([[1.0], [3.0], [8.0]]), "pca", 0)
    assert sorted(np.abs(coordinates[:, 0])) == pytest.approx([1, 3, 4]) and not coordinates[:, 1].any()
    assert explained == pytest.approx([1.0, 0.0])
    assert plane(np.array([[1.0, 2.0], [4.0, 6.0]]), "pca", 0)[1] == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_embeddings_that_are_not_numbers_are_refused(method):
    x, _ = groups(0)
    x[3, 2] = np.nan
    with pytest.raises(StudyError) as caught:
        plane(x, method, 0)
    assert caught.value.code == "embeddings-not-finite"


def test_without_umap_learn_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as Python marks a module that cannot be imported
    x, _ = groups(0)
    with pytest.raises(MachineError) as caught:
        plane(x, "umap", 0)
    assert caught.value.code == "umap-missing"
    assert 'pip install "fednotes[umap]"' in caught.value.next_step
    assert plane(x, "pca", 0)[0].shape == (60, 2)


def test_umap_keeps_groups_together_and_follows_its_seed():
    pytest.importorskip("umap")
    x, y = groups(0)
    coordinates, explained = plane(x, "umap", 0)
    assert coordinates.shape == (60, 2) and explained == []
    distances = euclidean_distances(coordinates)
    np.fill_diagonal(distances, np.inf)
    assert (y[distances.argmin(axis=1)] == y).mean() > 0.95
    assert (plane(x, "umap", 0)[0] == coordinates).all()
    assert (plane(x, "umap", 1)[0] != coordinates).any()


@pytest.mark.filterwarnings("error:n_neighbors")  # more neighbours than there are notes
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5])
def test_umap_of_few_notes(n):
    pytest.importorskip("umap")
    coordinates, explained = plane(groups(0)[0][:n], "umap", 0)
    assert coordinates.shape == (n, 2) and np.isfinite(coordinates).all() and explained == []
    assert len(np.unique(coordinates, axis=0)) == n
