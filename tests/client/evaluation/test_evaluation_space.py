"""Each figure against its definition written out, note by note or by another library, and where it is undefined."""

import math

import networkx
import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances
from sklearn.metrics.pairwise import euclidean_distances as euclidean

from client.evaluation import space as module
from client.evaluation.space import (
    alignment,
    effective_rank,
    linear_cka,
    modularity,
    silhouette,
    space,
    uniformity,
    within_between,
)
from common.errors import StudyError
from common.results import Space

pytestmark = pytest.mark.filterwarnings("error")  # a division by 0, or the log of it

BY_CLASS = ("within", "between", "alignment", "silhouette_label", "modularity_label")


def cloud(seed: int, n: int = 60, width: int = 12, distance: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of very different lengths in four classes of very different sizes; every seventh note has no class."""
    rng = np.random.default_rng(seed)
    y = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    centres = np.random.default_rng(1000).normal(size=(4, width)) * distance
    x = (centres[y] + 0.5 + rng.normal(size=(n, width))) * rng.uniform(0.1, 9, size=(n, 1))
    classes = np.array([f"class {k}" for k in y], dtype=object)
    classes[::7] = None
    return x, classes


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def unit(x: np.ndarray) -> np.ndarray:
    return np.array([row / math.sqrt(row @ row) for row in x])


@pytest.mark.parametrize("seed", range(5))
def test_within_and_between_are_means_over_all_pairs(seed):
    x, classes = cloud(seed)
    pairs: dict[bool, list[float]] = {True: [], False: []}
    for i in range(len(x)):
        for j in range(i):
            if classes[i] is not None and classes[j] is not None:
                pairs[classes[i] == classes[j]].append(cosine(x[i], x[j]))
    assert within_between(cosine_distances(x), classes) == pytest.approx((np.mean(pairs[True]), np.mean(pairs[False])))


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_the_mean_over_classes_of_their_mean_squared_distance(seed):
    x, classes = cloud(seed)
    expected = []
    for name in {name for name in classes if name is not None}:
        rows = unit(x[classes == name])
        if len(rows) > 1:
            expected.append((euclidean(rows) ** 2).sum() / (len(rows) * (len(rows) - 1)))
    assert alignment(cosine_distances(x), classes, seed) == pytest.approx(np.mean(expected), abs=0.02)


def test_alignment_gives_a_large_class_no_more_say_than_a_small_one():
    # "wide" is one pair at 60 degrees, whose squared distance is 1; "narrow" is 21 pairs at 0.
    x = np.array([[1, 0], [0.5, math.sqrt(0.75)]] + [[3, 4]] * 7)
    classes = ["wide"] * 2 + ["narrow"] * 7
    assert alignment(cosine_distances(x), classes, 0) == pytest.approx(0.5)


def test_a_pair_is_never_a_note_with_itself():
    opposite = np.array([[1.0, 0.0], [-2.0, 0.0]])
    assert alignment(cosine_distances(opposite), ["a", "a"], 0) == pytest.approx(4.0)


def test_pairs_are_keyed_by_seed_and_class_alone():
    x, classes = cloud(2)
    distances = cosine_distances(x)
    only = {
        name: alignment(distances, [c if c == name else None for c in classes], 5) for name in ("class 0", "class 1")
    }
    both = alignment(distances, [c if c in only else None for c in classes], 5)
    assert both == pytest.approx(np.mean(list(only.values())), abs=1e-12)
    assert alignment(distances, classes, 5) == alignment(distances, classes, 5) != alignment(distances, classes, 6)


@pytest.mark.parametrize("seed", range(5))
def test_uniformity_is_that_of_its_authors(seed):
    x, _ = cloud(seed)
    theirs = torch.pdist(torch.from_numpy(unit(x))).pow(2).mul(-2).exp().mean().log()
    assert uniformity(cosine_distances(x)) == pytest.approx(float(theirs))


def test_uniformity_of_one_point_of_opposite_points_and_of_a_sphere():
    assert uniformity(cosine_distances(np.tile([0.3, 0.4], (9, 1)))) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(cosine_distances(np.array([[1.0, 2.0], [-1.0, -2.0]]))) == pytest.approx(-8.0)
    sphere = np.random.default_rng(0).normal(size=(300, 400))
    assert uniformity(cosine_distances(sphere)) == pytest.approx(-4.0, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_silhouette_note_by_note(seed):
    x, classes = cloud(seed)
    classes[0] = "alone"
    known = [i for i in range(len(x)) if classes[i] is not None]
    values = []
    for i in known:
        to = {
            name: [1 - cosine(x[i], x[j]) for j in known if j != i and classes[j] == name]
            for name in {classes[j] for j in known}
        }
        own = to.pop(classes[i])
        a, b = np.mean(own or [0]), min(np.mean(rest) for rest in to.values())
        values.append((b - a) / max(a, b) if own else 0.0)
    assert silhouette(cosine_distances(x), classes) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(("seed", "n"), [(0, 60), (1, 60), (2, 200), (3, 9), (4, 25)])
def test_modularity_equals_networkx_and_its_formula(seed, n):
    x, classes = cloud(seed, n)
    x, classes = x[classes != None], classes[classes != None]  # noqa: E711
    k = min(10, int(math.sqrt(len(x))))
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(x)))
    for i in range(len(x)):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine(x[i], x[j]))
        graph.add_edges_from((i, j) for j in others[:k])
    communities = [set(np.flatnonzero(classes == name).tolist()) for name in set(classes)]
    a, degree = networkx.to_numpy_array(graph), np.array([graph.degree(i) for i in range(len(x))])
    total = sum(
        a[i, j] - degree[i] * degree[j] / degree.sum()
        for i in range(len(x))
        for j in range(len(x))
        if classes[i] == classes[j]
    )
    found = modularity(cosine_distances(x), classes)
    assert found == pytest.approx(networkx.community.modularity(graph, communities))
    assert found == pytest.approx(total / degree.sum())


def test_modularity_of_two_groups_apart_is_one_half_and_of_shuffled_classes_0():
    one = np.random.default_rng(0).normal(size=(50, 8)) + 4
    distances, classes = cosine_distances(np.concatenate([one, -one])), np.repeat(["one", "other"], 50)
    assert modularity(distances, classes) == pytest.approx(0.5)
    assert modularity(distances, np.random.default_rng(1).permutation(classes)) == pytest.approx(0, abs=0.06)


def test_notes_without_a_class_change_no_figure_about_classes():
    x, classes = cloud(4)
    known = np.array([name is not None for name in classes])
    both, only = space(x, classes, classes), space(x[known], classes[known], classes[known])
    assert 0 < known.sum() < len(x)
    for name in (*BY_CLASS, "silhouette_category", "modularity_category"):
        assert getattr(both, name) == pytest.approx(getattr(only, name)), name
    assert both.uniformity != pytest.approx(only.uniformity)


def test_effective_rank_by_hand():
    spread = np.concatenate([np.eye(6), -np.eye(6)]) + 7  # six equal singular values, and a mean that is no dimension
    assert effective_rank(spread) == pytest.approx(6.0)
    assert effective_rank(np.outer(np.arange(9.0), [1, 2, 3]) + 5) == pytest.approx(1.0)
    uneven = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values in the ratio 3 to 1
    assert effective_rank(uneven) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_effective_rank_of_an_isotropic_cloud_is_its_width_however_it_is_moved():
    x = np.random.default_rng(0).normal(size=(4000, 20))
    rank = effective_rank(x)
    assert rank == pytest.approx(20, rel=0.01)
    assert effective_rank(x @ rotation(20, 40) * 1e-3 + 5) == pytest.approx(rank)  # turned into 40 dimensions


def rotation(rows: int, columns: int, seed: int = 3) -> np.ndarray:
    """[rows, columns] with orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(columns, columns)))[0][:rows]


@pytest.mark.parametrize("width", [5, 12, 200])
def test_cka_equals_its_form_by_gram_matrices(width):
    x, _ = cloud(0)
    y = np.random.default_rng(1).normal(size=(60, width)) + x[:, :1] + 2
    centring = np.eye(60) - 1 / 60
    k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    expected = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(expected) == pytest.approx(linear_cka(y, x))
    assert 0.05 < expected < 0.95  # or it would be no test


def test_cka_does_not_see_rotation_scale_or_shift_but_sees_the_rest():
    x, _ = cloud(1)
    y = np.random.default_rng(2).normal(size=(60, 12)) + 0.5 * x
    assert linear_cka(x, x @ rotation(12, 12) * 7 - 3) == pytest.approx(1.0)
    assert linear_cka(x, y @ rotation(12, 12) * 7 - 3) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, x * np.linspace(0.1, 3, 12)) < 0.95  # linear, but no rotation
    one, other = np.random.default_rng(3).normal(size=(2, 3000, 4))
    assert linear_cka(one, other) < 0.01


def test_space_puts_each_figure_in_its_place():
    x, labels = cloud(3)
    categories = np.random.default_rng(0).permutation(labels)
    base, local = x**2, np.tanh(x)[:, :4]
    found = space(x, list(labels), list(categories), base=base, local=local, seed=9)
    distances = cosine_distances(x)
    within, between = within_between(distances, labels)
    assert found == Space(
        notes=60,
        within=within,
        between=between,
        alignment=alignment(distances, labels, 9),
        uniformity=uniformity(distances),
        silhouette_label=silhouette(distances, labels),
        silhouette_category=silhouette(distances, categories),
        modularity_label=modularity(distances, labels),
        modularity_category=modularity(distances, categories),
        effective_rank=effective_rank(x),
        cka_base=linear_cka(x, base),
        cka_local=linear_cka(x, local),
    )
    figures = found.model_dump(exclude={"notes"})
    assert {type(value) for value in figures.values()} == {float}
    assert len(set(figures.values())) == len(figures)
    assert found.silhouette_label > found.silhouette_category


def test_float32_will_do_and_nothing_given_is_changed():
    x, labels = cloud(5)
    given = x.astype(np.float32)
    kept = given.copy()
    single = space(given, labels, labels, base=given).model_dump()
    assert (given == kept).all()
    assert single == pytest.approx(space(x, labels, labels, base=x).model_dump(), abs=1e-5)


def test_the_order_of_the_notes_does_not_matter():
    x, labels = cloud(6)
    order = np.random.default_rng(0).permutation(60)
    one = space(x, labels, labels, base=x**2).model_dump()
    other = space(x[order], labels[order], labels[order], base=x[order] ** 2).model_dump()
    assert other.pop("alignment") == pytest.approx(one.pop("alignment"), abs=0.02)  # other pairs are drawn
    assert other == pytest.approx(one)


def test_above_the_limit_a_sample_stands_for_all(monkeypatch):
    monkeypatch.setattr(module, "MAX_NOTES", 50)
    x, labels = cloud(7, n=400)
    given = {"embeddings": x, "labels": labels, "categories": labels, "base": 2 * x + 1, "local": -x}
    found = space(**given, seed=1)
    assert found.notes == 50
    assert (found.cka_base, found.cka_local) == (pytest.approx(1.0), pytest.approx(1.0))  # the same notes of all three
    assert space(**given | {"local": x[::-1]}, seed=1).cka_local < 0.9
    assert found == space(**given, seed=1)
    assert found.uniformity != space(x, labels, labels, seed=2).uniformity
    assert space(x[:50], labels[:50], labels[:50], seed=1).uniformity == uniformity(cosine_distances(x[:50]))


def test_one_class_leaves_what_needs_two_undefined():
    x, _ = cloud(0)
    found = space(x, ["only"] * 60, ["only"] * 60)
    undefined = {name for name, value in found.model_dump().items() if value is None}
    assert undefined == {
        "between",
        "silhouette_label",
        "silhouette_category",
        "modularity_label",
        "modularity_category",
        "cka_base",
        "cka_local",
    }


def test_no_class_at_all_leaves_the_figures_about_classes_undefined():
    x, labels = cloud(0)
    found = space(x, [None] * 60, labels)
    assert [getattr(found, name) for name in BY_CLASS] == [None] * 5
    assert None not in (found.uniformity, found.effective_rank, found.silhouette_category, found.modularity_category)


def test_a_class_a_note_has_no_pair_within():
    x, _ = cloud(0)
    found = space(x, [str(i) for i in range(60)], [None] * 60)
    assert (found.within, found.alignment, found.silhouette_label) == (None, None, None)
    assert found.between == pytest.approx(1 - cosine_distances(x).sum() / (60 * 59))
    assert found.modularity_label < 0


def test_fewer_than_two_notes_define_nothing():
    x, labels = cloud(0)
    for n in (0, 1):
        assert space(x[:n], labels[:n], labels[:n], base=x[:n], local=x[:n]) == Space(notes=n)


def test_two_notes():
    x = np.array([[1.0, 0.0], [1.0, 1.0]])
    root = math.sqrt(0.5)
    same, apart = space(x, ["a", "a"], ["a", None], base=x), space(x, ["a", "b"], [None, None])
    assert (same.within, same.between, same.alignment) == (pytest.approx(root), None, pytest.approx(2 - 2 * root))
    assert (apart.within, apart.between, apart.alignment) == (None, pytest.approx(root), None)
    assert same.uniformity == pytest.approx(-2 * (2 - 2 * root))
    assert (same.effective_rank, same.cka_base) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (apart.silhouette_label, apart.modularity_label) == (None, pytest.approx(-0.5))


@pytest.mark.parametrize("noise", [0.0, 3e-8])
def test_a_collapsed_encoder_has_no_shape(noise):
    """Noise as float32 gives it is not taken for structure."""
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=16), (40, 1)) * (1 + noise * rng.normal(size=(40, 16)))
    other, labels = rng.normal(size=(40, 16)), ["a", "b"] * 20
    found = space(x, labels, labels, base=other, local=x)
    assert found.model_dump(exclude_none=True) == pytest.approx(
        {"notes": 40, "within": 1.0, "between": 1.0, "alignment": 0.0, "uniformity": 0.0}, abs=1e-9
    )
    assert space(other, labels, labels, base=x).cka_base is None


def test_duplicates_count_as_notes():
    x, labels = cloud(8)
    twice = space(np.concatenate([x, x]), [*labels, *labels], [None] * 120)
    n = np.arange(60)
    expected = np.exp(-4 * cosine_distances(np.concatenate([x, x])))
    expected[n, n] = expected[n + 60, n + 60] = 0
    assert twice.uniformity == pytest.approx(math.log(expected.sum() / (120 * 119)))
    assert twice.effective_rank == pytest.approx(effective_rank(x))
    assert twice.within > space(x, labels, [None] * 60).within
    assert -0.5 <= twice.modularity_label <= 1


def test_an_embedding_without_a_direction_is_left_out():
    x, labels = cloud(9)
    holed, base = x.copy(), x**2
    holed[[3, 17]] = 0
    rest = np.setdiff1d(np.arange(60), [3, 17])
    assert space(holed, labels, labels, base=base) == space(x[rest], labels[rest], labels[rest], base=base[rest])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_numbers_are_refused(value):
    x, labels = cloud(0)
    bad = x.copy()
    bad[3, 2] = value
    for given in ({"embeddings": bad}, {"embeddings": x, "base": bad}, {"embeddings": x, "local": bad}):
        with pytest.raises(StudyError) as caught:
            space(labels=labels, categories=labels, **given)
        assert caught.value.code == "embeddings-not-finite"
