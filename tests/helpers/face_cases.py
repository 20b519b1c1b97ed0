"""Small evaluations of every kind, and predictions as MMEngine hands them to a metric."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from helpers.metric_names import named
from negvision.face.metrics import EmbeddingError
from negvision.registry import METRICS


def random_case(seed: int, identities: int = 12, images: int = 4, length: int = 16):
    """Metainfo of all three protocols, embeddings (N, D) and labels (N,) of noisy identities."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), images)
    centers = rng.normal(size=(identities, length))
    embeddings = (centers[labels] + 1.5 * rng.normal(size=(len(labels), length))).astype("f4")

    pairs = np.array([(i, j) for i in range(len(labels)) for j in range(i)])
    pairs = pairs[rng.permutation(len(pairs))[:700]]
    # The first image of most identities is the gallery, of some the first two.
    gallery = np.concatenate(
        [np.flatnonzero(labels == i)[: 1 + i % 2] for i in range(identities - 3)]
    )
    template_ids = 100 - (np.arange(len(labels)) // 3)
    subjects = {t: labels[template_ids == t][0] for t in np.unique(template_ids)}
    template_pairs = np.array([(a, b) for a in subjects for b in subjects if a < b])
    meta = {
        "pairs": pairs,
        "same": labels[pairs[:, 0]] == labels[pairs[:, 1]],
        "gallery": gallery,
        "probes": np.setdiff1d(np.arange(len(labels)), gallery),
        "template_ids": template_ids,
        "media_ids": rng.integers(0, 2, len(labels)),
        "detection_scores": rng.uniform(0.2, 1, len(labels)).astype("f4"),
        "template_pairs": template_pairs,
        "template_same": np.array([subjects[a] == subjects[b] for a, b in template_pairs]),
    }
    return meta, embeddings, labels


def predictions(embeddings, labels=None, order=None):
    """One dict an image, in ``order``."""
    order = range(len(embeddings)) if order is None else order
    return [
        {
            "embedding": torch.tensor(embeddings[i]),
            "label": torch.tensor(-1 if labels is None else int(labels[i])),
            "sample_idx": int(i),
            "img_path": f"faces/{i}.jpg",
        }
        for i in order
    ]


def build(kind: str, meta: dict, **kwargs):
    metric = METRICS.build({"type": f"negvision.{kind}", **kwargs})
    metric.dataset_meta = meta
    return metric


def evaluated(metric, samples, batch: int = 5):
    for start in range(0, len(samples), batch):
        metric.process({}, samples[start : start + batch])
    return named(metric, metric.evaluate(size=len(samples)))


def scored(seed, size=400, levels=None, share=0.3):
    """Random scores that tell the kinds apart a little; few ``levels`` make many ties."""
    rng = np.random.default_rng(seed)
    same = rng.random(size) < share
    same[:2] = True, False
    scores = rng.normal(size=size) + same
    if levels:
        scores = np.round(scores * levels) / levels
    return scores.astype(np.float32), same


def check_error_on_ranks():
    meta, embeddings, labels = random_case(21)
    embeddings[47] = np.nan
    dealt = range(dist.get_rank(), 48, 2)
    with pytest.raises(EmbeddingError, match=r"1 of 48 embeddings are NaN.*faces/47.jpg"):
        evaluated(build("VerificationMetric", meta), predictions(embeddings, labels, dealt))
