"""Templates: one embedding of all the images and videos of a person."""

from __future__ import annotations

import numpy as np

from negvision.face.metrics.embeddings import EmbeddingError, row_norms

# Columns that are summed at a time, so that only they stand in memory in float64.
_COLUMNS = 64


def template_embeddings(
    embeddings: np.ndarray,
    template_ids: np.ndarray,
    media_ids: np.ndarray,
    use_norm: bool = True,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One unit vector a template: the mean of each medium, and the sum of the media's means.

    The frames of a video are one medium, so that a long video weighs as much as a photograph. A
    medium that belongs to two templates is averaged in each of them on its own.

    Args:
        embeddings: Shape (N, D).
        template_ids: Shape (N,), the template of each image, any integers.
        media_ids: Shape (N,), its medium within the template, any integers.
        use_norm: Average the embeddings as they are, so that images with longer ones weigh more.
            False makes each of length one first.
        weights: Shape (N,), factors in addition, such as the scores of a face detector.

    Returns:
        Template ids, shape (T,), ascending, and their vectors, shape (T, D), float64, of length 1.

    Raises:
        EmbeddingError: The media of a template cancel each other.

    Source: Crosswhite et al., "Template adaptation for face verification and identification",
    FG 2017 (media pooling); Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPRW 2017;
    Maze et al., "IARPA Janus Benchmark - C", ICB 2018. The published figures of ArcFace on IJB-B
    and IJB-C (InsightFace's evaluation scripts) are those of ``use_norm=True`` with the scores
    of the detector as weights.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, -9.0]])
        >>> ids, templates = template_embeddings(
        ...     vectors, np.array([4, 4, 4, 2]), np.array([0, 0, 1, 0]))
        >>> ids.tolist(), templates.round(4).tolist()
        ([2, 4], [[0.0, -1.0], [0.7071, 0.7071]])
    """
    if not len(template_ids):
        return np.empty(0, dtype=np.int64), np.empty((0, embeddings.shape[1]))
    order = np.lexsort((media_ids, template_ids))
    templates, media = np.asarray(template_ids)[order], np.asarray(media_ids)[order]
    new_template = np.append(True, templates[1:] != templates[:-1])
    new_medium = np.append(True, media[1:] != media[:-1]) | new_template
    media_starts = np.flatnonzero(new_medium)
    images = np.diff(np.append(media_starts, len(order)))
    # Of each template, its first medium.
    template_starts = np.flatnonzero(new_template[media_starts])

    factors = np.ones(len(order)) if weights is None else np.asarray(weights, np.float64)[order]
    if not use_norm:
        factors = factors / row_norms(embeddings)[order]
    sums = np.empty((len(template_starts), embeddings.shape[1]))
    for start in range(0, embeddings.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        weighted = embeddings[order, part] * factors[:, None]
        means = np.add.reduceat(weighted, media_starts, axis=0) / images[:, None]
        sums[:, part] = np.add.reduceat(means, template_starts, axis=0)

    ids, norms = templates[new_template], row_norms(sums)
    if (norms == 0).any():
        raise EmbeddingError(
            f"{int((norms == 0).sum()):,} of {len(ids):,} templates have the embedding zero (the "
            f"first: template {ids[np.argmax(norms == 0)]}): the embeddings of their media cancel "
            "each other, or all their weights are zero"
        )
    return ids, sums / norms[:, None]
