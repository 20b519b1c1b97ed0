"""Templates against a loop, and by hand."""

import numpy as np
import pytest
from oracles.faces import slow_templates

from negvision.face.metrics.embeddings import EmbeddingError
from negvision.face.metrics.template_metric import template_embeddings


@pytest.mark.parametrize("use_norm", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_loop(use_norm, weighted):
    rng = np.random.default_rng(0)
    embeddings = (rng.normal(size=(200, 70)) * rng.uniform(0.1, 9, (200, 1))).astype("f4")
    ids, media = rng.integers(0, 40, 200) * 7 - 9, rng.integers(-2, 3, 200)
    weights = rng.random(200).astype("f4") if weighted else None
    found_ids, found = template_embeddings(embeddings, ids, media, use_norm, weights)
    expected = slow_templates(embeddings, ids, media, use_norm, weights)
    assert found_ids.tolist() == list(expected)
    np.testing.assert_allclose(found, np.stack(list(expected.values())), atol=1e-12)


def test_by_hand():
    # Medium 0 has two frames whose mean is (2, 0); medium 1 one image, (0, 1).
    embeddings = np.array([[1, 0], [3, 0], [0, 1.0]])
    ids, media = np.array([5, 5, 5]), np.array([0, 0, 1])
    _, found = template_embeddings(embeddings, ids, media)
    np.testing.assert_allclose(found, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-15)
    # Of length one each, the lengths do not matter.
    _, found = template_embeddings(embeddings, ids, media, use_norm=False)
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]], rtol=1e-15)
    _, found = template_embeddings(embeddings, ids, media, weights=np.array([1, 1, 2]))
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]], rtol=1e-15)


def test_a_medium_of_two_templates_is_averaged_in_each():
    embeddings = np.array([[1, 0], [0, 1.0]])
    ids, found = template_embeddings(embeddings, np.array([2, 1]), np.array([9, 9]))
    assert ids.tolist() == [1, 2] and found.tolist() == [[0, 1], [1, 0]]


def test_no_image():
    ids, found = template_embeddings(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    assert len(ids) == 0 and found.shape == (0, 4)


def test_media_that_cancel():
    embeddings = np.array([[1, 0], [-1, 0], [1, 1.0]])
    with pytest.raises(EmbeddingError, match=r"1 of 2 templates .* \(the first: template 8\)"):
        template_embeddings(embeddings, np.array([8, 8, 9]), np.array([0, 1, 0]))
