"""Metrics of faces by loops over all thresholds, pairs and identities."""

from itertools import pairwise

import numpy as np

from negvision.face.metrics.embeddings import cosine_similarities


def slow_best_threshold(scores, same):
    scores = scores.astype(float)
    middles = [(low + high) / 2 for low, high in pairwise(sorted(set(scores)))]
    best, best_accuracy = None, -1.0
    # From the highest down, so that the highest of equally good ones stays.
    for threshold in [np.inf, *reversed(middles), -np.inf]:
        accuracy = np.sum((scores >= threshold) == same)
        if accuracy > best_accuracy:
            best, best_accuracy = threshold, accuracy
    return best


def slow_identify(gallery, gallery_labels, probes, probe_labels):
    """Ranks and scores of probes with a mate, and scores of the impostors."""
    ranks, mates, impostors = [], [], []
    for probe, label in zip(probes, probe_labels, strict=True):
        best = {}
        for image, identity in zip(gallery, gallery_labels, strict=True):
            score = cosine_similarities(np.stack([probe, image]), np.array([[0, 1]]))[0]
            best[identity] = max(best.get(identity, -2), score)
        if label in best:
            ranks.append(sum(score >= best[label] for score in best.values()))
            mates.append(best[label])
        else:
            impostors.append(max(best.values()))
    return ranks, mates, impostors


def slow_templates(embeddings, template_ids, media_ids, use_norm=True, weights=None):
    vectors = {}
    for template in sorted(set(template_ids.tolist())):
        media = {}
        for i in np.flatnonzero(template_ids == template):
            vector = embeddings[i].astype(float)
            if not use_norm:
                vector = vector / np.linalg.norm(vector)
            if weights is not None:
                vector = vector * float(weights[i])
            media.setdefault(media_ids[i], []).append(vector)
        total = sum(np.mean(frames, axis=0) for frames in media.values())
        vectors[template] = total / np.linalg.norm(total)
    return vectors


def slow_tar_at_far(scores, same, far):
    best = 0.0
    for threshold in [np.inf, *scores]:
        if np.mean(scores[~same] >= threshold) <= far:
            best = max(best, np.mean(scores[same] >= threshold))
    return best
