"""Embeddings by sample, and their cosines."""

import numpy as np
import pytest

from negvision.face.metrics import embeddings as embeddings_module
from negvision.face.metrics.embeddings import (
    EmbeddingBatch,
    EmbeddingError,
    EmbeddingTable,
    cosine_similarities,
)


def batch(indices, vectors, invalid=()):
    indices = np.array(indices)
    return EmbeddingBatch(indices, 10 * indices, np.array(vectors, "f4"), dict(invalid))


def test_samples_are_sorted_and_unique():
    # Sample 4 comes again with another vector, as of a padded batch: the first one stays.
    table = EmbeddingTable([batch([4, 2], [[1, 0], [0, 2]]), batch([7, 4], [[3, 4], [5, 5]])])
    assert table.sample_idx.tolist() == [2, 4, 7]
    assert table.labels.tolist() == [20, 40, 70]
    assert table.embeddings.tolist() == [[0, 2], [1, 0], [3, 4]]
    assert table.norms.tolist() == [2, 1, 5]
    assert table.rows_of(np.array([[7, 2], [4, 4]])).tolist() == [[2, 0], [1, 1]]
    says = r"3 of the 4 samples .* not predicted \(the first: sample 0\)"
    with pytest.raises(EmbeddingError, match=says):
        table.rows_of(np.array([[4, 3], [0, 9], [9, 9]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad):
    batches = [
        batch([0, 5], [[1, 0], [bad, 2]], {5: "b.jpg"}),
        batch([3, 5], [[1, bad], [bad, 2]], {3: "a.jpg", 5: "b.jpg"}),
    ]
    with pytest.raises(EmbeddingError, match=r"2 of 3 .* NaN or infinite .*sample 3, a.jpg\)"):
        EmbeddingTable(batches)


def test_zero():
    with pytest.raises(EmbeddingError, match=r"1 of 2 embeddings are zero .*sample 1\)"):
        EmbeddingTable([batch([0, 1], [[1, 0], [0, 0]])])
    # The smallest number is none.
    assert EmbeddingTable([batch([0], [[1e-45, 0]])]).norms[0] > 0


def test_no_embedding():
    with pytest.raises(EmbeddingError, match="no embedding was predicted"):
        EmbeddingTable([batch([], np.zeros((0, 4)))])


@pytest.mark.parametrize("values", [1 << 22, 100])
def test_cosines_equal_the_loop(monkeypatch, values):
    monkeypatch.setattr(embeddings_module, "_CHUNK_VALUES", values)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(40, 33)) * 10 ** rng.uniform(-15, 15, (40, 1))).astype("f4")
    pairs = rng.integers(0, 40, (90, 2))
    found = cosine_similarities(vectors, pairs)
    for (i, j), score in zip(pairs, found, strict=True):
        a, b = vectors[i].astype(float), vectors[j].astype(float)
        assert score == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-7)
    np.testing.assert_array_equal(found, cosine_similarities(vectors, pairs[:, ::-1]))
    np.testing.assert_array_equal(found[::-1], cosine_similarities(vectors, pairs[::-1]))
    assert found.dtype == np.float32 and np.abs(found).max() <= 1


def test_equal_directions_tie():
    vectors = np.linspace(0.1, 3, 50)[:, None] * np.random.default_rng(1).normal(size=512)
    pairs = np.array([(i, j) for i in range(50) for j in range(i)])
    assert set(cosine_similarities(vectors, pairs).tolist()) == {1.0}
