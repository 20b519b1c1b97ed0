"""Component-level metrics of an OOD map: are objects found, and are predicted objects real?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from negvision.ood.curve import ScoreCurve

# Minimum overlap of a found component, from 0.25 to 0.75.
THRESHOLDS = np.linspace(0.25, 0.75, 11)
# Pixels that touch at a corner belong to one component.
_NEIGHBORS = np.ones((3, 3), int)
_OOD, _VOID = 1, 255


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of the components of one or more images, float64 in [0, 1]."""

    siou: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (G,): of each true component
    ppv: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (P,): of each predicted one

    def __add__(self, other: Overlaps) -> Overlaps:
        return Overlaps(
            np.concatenate([self.siou, other.siou]), np.concatenate([self.ppv, other.ppv])
        )

    def metrics(self) -> dict[str, float]:
        """``component_f1`` (F1*), ``component_siou`` and ``component_ppv``; means, in [0, 1].

        At each of ``THRESHOLDS`` an OOD component is found if its sIoU reaches it, and a predicted
        one is a false positive if its PPV does not; F1* is the mean over thresholds. Without
        components of a kind the mean is 0.
        """
        found = (self.siou[None] >= THRESHOLDS[:, None]).sum(1)
        false = (self.ppv[None] < THRESHOLDS[:, None]).sum(1)
        missed = len(self.siou) - found
        f1 = 2 * found / np.maximum(2 * found + missed + false, 1)
        return {
            "component_f1": float(f1.mean()),
            "component_siou": float(self.siou.mean()) if len(self.siou) else 0.0,
            "component_ppv": float(self.ppv.mean()) if len(self.ppv) else 0.0,
        }


def component_overlaps(
    unknown: np.ndarray, ood_map: np.ndarray, min_predicted: int = 500, min_object: int = 100
) -> Overlaps:
    """Overlaps of the components of one image.

    Components consist of pixels that touch, also at a corner. Void is ignored: predicted pixels on
    it are dropped before components are formed, and true OOD components that are too small become
    void.

    sIoU of an OOD component k, with K the predicted components that touch it and A all other OOD
    components, is ``|k and K| / |(k or K) without A|``: the usual IoU without a penalty for one
    prediction over two objects. PPV of a predicted component is the share of its pixels that are
    OOD.

    Source: Chan et al., "SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation", NeurIPS 2021
    Datasets and Benchmarks, section 4.2; the sizes are those of its evaluation code.

    Args:
        unknown: (H, W) bool, pixels predicted as OOD.
        ood_map: (H, W), 0 ID, 1 OOD, 255 void.
        min_predicted: Smaller predicted components are dropped; in pixels.
        min_object: Smaller true components become void; in pixels.

    Example:
        >>> truth = np.zeros((4, 8), np.uint8)
        >>> truth[:, :4] = 1
        >>> overlaps = component_overlaps(truth.astype(bool), truth, 1, 1)
        >>> overlaps.siou, overlaps.ppv
        (array([1.]), array([1.]))
    """
    valid = ood_map != _VOID
    predicted, num_predicted = _components(unknown & valid, min_predicted)
    is_ood = ood_map == _OOD
    truth, num_truth = _components(is_ood, min_object)
    valid &= ~(is_ood & (truth == 0))
    # Pixels of each pair of true and predicted components; the first row and column are for none.
    pairs = truth[valid] * (num_predicted + 1) + predicted[valid]
    counts = np.bincount(pairs, minlength=(num_truth + 1) * (num_predicted + 1))
    counts = counts.reshape(num_truth + 1, num_predicted + 1)
    shared = counts[1:, 1:]
    # |(k or K) without A| is k and the part of K that lies on no OOD component.
    beside = (shared > 0) @ counts[0, 1:]
    siou = shared.sum(1) / (counts[1:].sum(1) + beside)
    sizes = counts[:, 1:].sum(0)
    # A component may lie entirely on pixels that became void.
    ppv = (shared.sum(0) / np.maximum(sizes, 1))[sizes > 0]
    return Overlaps(siou, ppv)


def _components(mask: np.ndarray, min_size: int) -> tuple[np.ndarray, int]:
    """Components of at least ``min_size`` pixels, labeled from 1 (int64), and their number."""
    numbered, count = ndimage.label(mask, _NEIGHBORS)
    large = np.bincount(numbered.ravel(), minlength=count + 1) >= min_size
    large[0] = False
    return np.where(large, large.cumsum(), 0)[numbered], int(large.sum())


def best_f1_threshold(curve: ScoreCurve) -> tuple[float, float]:
    """The threshold with the highest F1 over pixels, and this F1; the highest of equal ones."""
    f1 = 2 * curve.positives / (curve.positives + curve.negatives + curve.total_positives)
    best = int(f1.argmax())
    return float(curve.thresholds[best]), float(f1[best])


class PackedMap:
    """An OOD map and its truth, compressed without loss until the threshold is known.

    Takes about 3 bytes per pixel: the four bytes of the scores are compressed separately, and sign
    and exponent compress well.

    Args:
        scores: (H, W) float32.
        ood_map: (H, W) uint8, 0 ID, 1 OOD, 255 void.

    Example:
        >>> packed = PackedMap(np.ones((4, 8), np.float32), np.zeros((4, 8), np.uint8))
        >>> packed.scores().shape, packed.ood_map().shape
        ((4, 8), (4, 8))
    """

    def __init__(self, scores: np.ndarray, ood_map: np.ndarray) -> None:
        self.shape = scores.shape
        planes = np.ascontiguousarray(scores, np.float32).view(np.uint8).reshape(-1, 4).T
        self._scores = zlib.compress(planes.tobytes(), 1)
        self._ood_map = zlib.compress(ood_map.tobytes(), 1)

    def scores(self) -> np.ndarray:
        """(H, W) float32."""
        planes = np.frombuffer(zlib.decompress(self._scores), np.uint8).reshape(4, -1)
        return np.ascontiguousarray(planes.T).view(np.float32).reshape(self.shape)

    def ood_map(self) -> np.ndarray:
        """(H, W) uint8."""
        return np.frombuffer(zlib.decompress(self._ood_map), np.uint8).reshape(self.shape)
