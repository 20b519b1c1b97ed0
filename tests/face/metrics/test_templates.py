"""Templates against a loop."""

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


def test_no_image():
    ids, found = template_embeddings(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    assert len(ids) == 0 and found.shape == (0, 4)


def test_media_that_cancel():
    embeddings = np.array([[1, 0], [-1, 0], [1, 1.0]])
    with pytest.raises(EmbeddingError, match=r"1 of 2 templates .* \(the first: template 8\)"):
        template_embeddings(embeddings, np.array([8, 8, 9]), np.array([0, 1, 0]))
