"""OOD metrics of segmentation over pixels and objects, and metrics of the ID classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, OODDataError
from negvision.ood import OODValues, ood_score, score_curve
from negvision.ood.curve import check_finite
from negvision.ood.records import OODRecords, evaluate_records
from negvision.ood.scores import computable
from negvision.registry import METRICS
from negvision.segmentation.metrics.components import (
    Overlaps,
    PackedMap,
    best_f1_threshold,
    component_overlaps,
)
from negvision.segmentation.metrics.pixel_counts import (
    ImagePixels,
    PixelCounts,
    confusion_metrics,
)
from negvision.visualization.heat import shrunk

_VOID = 255
_HEAT_SIDE = 160
_SHARES = (0.01, 0.05)
_SHARE_NAMES = ("no OOD", "up to 1 %", "up to 5 %", "more")


@METRICS.register_module()
class OODPixelMetric(OODMetricBase):
    """Metrics of OOD maps over pixels and over objects, and the mIoU of the ID classes.

    Void pixels (255 in ``gt_ood_map``) are ignored. The metrics use every pixel: exactly with
    ``exact``, otherwise within guaranteed bounds that the table shows. Intervals (bootstrap over
    images), strata and the report use pixels sampled evenly from each image. Strata are the
    predicted class and the share of OOD in an image.

    Components follow SegmentMeIfYouCan: the map is binarized at the best F1 over pixels; see
    :mod:`negvision.segmentation.metrics.components`. Since the threshold is known only at the end,
    each map is kept until then, compressed to about 3 bytes per pixel (120 MB for CamVid's test
    set, 3.1 GB for 500 images of 2048 x 1024), unless ``components=False``. Apart from that,
    memory does not grow with the number of images: 64 MiB per score.

    Args:
        exact: Keep every score, in five bytes per pixel and score, instead of bins.
        components: Whether to evaluate components.
        min_component_size: Smaller predicted components are dropped; in pixels. The benchmark uses
            500 for its anomalies and 50 for its obstacles.
        min_object_size: Smaller objects of the truth become void; in pixels. The benchmark uses 100
            and 10.
        resamples: Of the bootstrap; fewer than for boxes, since there are more samples.
        **kwargs: Of :class:`negvision.engine.metrics.OODMetricBase`.

    Returned keys in addition to those of ``OODMetricBase``: ``mIoU`` and ``pixel_accuracy`` of the
    ID classes, if the pipeline loads labels; ``image_auroc_mean``, ``_median`` and ``_worst`` over
    images with OOD and ID; ``pixel_f1`` and ``f1_threshold``; ``component_f1`` (F1*),
    ``component_siou``, ``component_ppv``, ``num_components`` (of the truth).

    Raises:
        ConfigError: Predictions have no OOD map, or samples no truth.
        OODDataError: There is no OOD or no ID pixel, or a score is not finite.

    Example:
        >>> obstacles = dict(min_component_size=50, min_object_size=10)
        >>> val_evaluator = dict(type="negvision.OODPixelMetric", **obstacles)
    """

    added = (
        "mIoU", "pixel_accuracy", "image_auroc_*", "pixel_f1", "f1_threshold", "component_f1",
        "component_siou", "component_ppv", "num_components",
    )  # fmt: skip

    def __init__(
        self,
        exact: bool = False,
        components: bool = True,
        min_component_size: int = 500,
        min_object_size: int = 100,
        resamples: int = 300,
        **kwargs,
    ) -> None:
        super().__init__(resamples=resamples, **kwargs)
        if min(min_component_size, min_object_size) < 1:
            raise ValueError(
                "min_component_size and min_object_size must be at least 1, got "
                f"{min_component_size} and {min_object_size}"
            )
        self.exact = exact
        self.components = components
        self.min_component_size, self.min_object_size = min_component_size, min_object_size

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch."""
        if not self.results:
            self.results.append(PixelCounts(self.exact))
        for sample in data_samples:
            self.results[0].add(self._image(sample))

    def compute_metrics(self, results: list[PixelCounts]) -> dict[str, float]:
        """Evaluate the pixels of all ranks; see the class for the keys."""
        counts, twice = PixelCounts.combined(results)
        if twice:
            print_log(
                f"{twice} images were predicted by two processes and count twice; evaluate with "
                "DefaultSampler(shuffle=False)",
                logger="current",
                level=30,
            )
        if not counts.streams:
            raise OODDataError("no pixel was evaluated: the data set is empty")
        try:
            every_pixel = {name: stream.compute() for name, stream in counts.streams.items()}
        except OODDataError as error:
            raise OODDataError(
                f"{error} OOD pixels have the ood_classes of negvision.LoadOODMap, ID pixels the "
                "classes of the data set."
            ) from None
        records = self.records([counts])
        own = next(iter(every_pixel.values()))
        records = replace(records, notes=self._notes(counts, own, len(records.is_ood)))
        sampled = evaluate_records(records, self.resamples)
        by_score = {
            name: replace(metrics, intervals=sampled.by_score[name].intervals)
            for name, metrics in every_pixel.items()
        }
        return self.report(replace(sampled, by_score=by_score))

    def leave_out_extras(self) -> None:
        """See the base class."""
        self.components = False

    def sampled_records(self, results: list[PixelCounts]) -> OODRecords:
        """Some pixels of each image."""
        return self.records([PixelCounts.combined(results)[0]])

    def records(self, results: Sequence[PixelCounts]) -> OODRecords:
        """The sampled pixels of ``results``, a list with the combined counts."""
        [counts] = results
        paths = list(counts.images)
        images = list(counts.images.values())
        lengths = [len(image.is_ood) for image in images]
        labels = np.concatenate([image.labels for image in images]).astype(np.int64)
        classes = tuple((self.dataset_meta or {}).get("classes") or ())
        classes = classes or tuple(map(str, range(labels.max(initial=0) + 1)))
        shares = [image.num_ood / max(image.num_ood + image.num_id, 1) for image in images]
        share_codes = [int(share > 0) + int(np.searchsorted(_SHARES, share)) for share in shares]
        return OODRecords(
            task="pixels",
            scores={
                name: np.concatenate([image.scores[name] for image in images])
                for name in counts.streams
            },
            is_ood=np.concatenate([image.is_ood for image in images]),
            image=np.repeat(np.arange(len(images)), lengths),
            weights=np.concatenate([image.weights() for image in images]),
            paths=paths,
            classes=classes,
            strata={
                "predicted class": (classes, labels),
                "OOD in the image": (_SHARE_NAMES, np.repeat(share_codes, lengths)),
            },
            heat={paths.index(path): heat for _, path, heat in counts.heat},
        )

    def _notes(self, counts: PixelCounts, own: OODValues, sampled: int) -> dict:
        bounds = "exact"
        if own.bounds:
            widths = {name: high - low for name, (low, high) in own.bounds.items()}
            bounds = f"within {max(widths.values()):.1e} of the exact values"
        notes: dict[str, float | int | str] = {
            "metrics": f"over every pixel, {bounds}; intervals and strata over {sampled:,} pixels, "
            "sampled evenly from each image"
        }
        if counts.confusion is not None:
            notes |= confusion_metrics(counts.confusion)
        aurocs = [image.auroc for image in counts.images.values() if image.auroc is not None]
        if aurocs:
            notes |= {
                "image_auroc_mean": float(np.mean(aurocs)),
                "image_auroc_median": float(np.median(aurocs)),
                "image_auroc_worst": float(np.min(aurocs)),
            }
        threshold, f1 = best_f1_threshold(own.curve)
        notes |= {"pixel_f1": f1, "f1_threshold": threshold}
        if counts.packed:
            overlaps = Overlaps()
            for packed in counts.packed.values():
                unknown = packed.scores() >= np.float32(threshold)
                overlaps += component_overlaps(
                    unknown, packed.ood_map(), self.min_component_size, self.min_object_size
                )
            notes |= overlaps.metrics()
            notes |= {
                "num_components": len(overlaps.siou),
                "components": f"OOD objects with at least {self.min_object_size:,} pixels; "
                f"{len(overlaps.ppv):,} with at least {self.min_component_size:,} are predicted",
            }
        return notes

    def _image(self, sample: dict) -> ImagePixels:
        path = sample.get("img_path", "an image without img_path")
        ood_map, truth = self._maps(sample, path)
        valid = truth != _VOID
        own_name = sample["ood_map"].get("score", "score")
        scores = {own_name: ood_map[valid]}
        logits = sample.get("seg_logits", {}).get("data")
        temperature = sample.get("temperature", {}).get("data", [None])[0]
        for name in self.scores:
            if name in scores or not computable(name, own_name):
                continue
            if logits is None:
                raise ConfigError(
                    f"{path}: there are no seg_logits to compute {name!r} from; evaluate only the "
                    "model's own score with scores=() of OODPixelMetric"
                )
            scores[name] = ood_score(name, logits, temperature, dim=0).float()[valid]
        for name, values in scores.items():
            try:
                check_finite(values)
            except OODDataError as error:
                raise OODDataError(f"{path}, score {name!r}: {error}") from None
        own, is_ood = next(iter(scores.values())), (truth == 1)[valid]
        predicted = sample["pred_sem_seg"]["data"][0]
        auroc = None
        if is_ood.any() and not is_ood.all():
            auroc = score_curve(own, is_ood).auroc()
        scored, truth = ood_map.cpu().numpy(), truth.cpu().numpy()
        num_classes = len((self.dataset_meta or {}).get("classes") or ()) or len(logits)
        return ImagePixels(
            path=path,
            scores={name: values.cpu().numpy() for name, values in scores.items()},
            is_ood=is_ood.cpu().numpy(),
            labels=predicted[valid].cpu().numpy().astype(np.int16),
            auroc=auroc,
            heat=shrunk(scored, _HEAT_SIDE),
            confusion=label_confusion(sample, predicted, num_classes, path),
            packed=PackedMap(scored, truth) if self.components else None,
        )

    @staticmethod
    def _maps(sample: dict, path: str) -> tuple[Tensor, Tensor]:
        """The OOD map (H, W) float32 and its truth (H, W) on the same device."""
        if "ood_map" not in sample:
            raise ConfigError(
                f"{path}: the prediction has no ood_map. Set the type of the model to "
                '"negvision.AbeTEncoderDecoder", or to "negvision.OODEncoderDecoder", which has '
                "the same network as EncoderDecoder"
            )
        if "gt_ood_map" not in sample:
            raise ConfigError(
                f"{path}: the sample has no gt_ood_map. The pipeline needs "
                'dict(type="negvision.LoadOODMap", ood_classes=[...]) and '
                'dict(type="negvision.PackSegInputs")'
            )
        ood_map = sample["ood_map"]["data"][0].float()
        truth = sample["gt_ood_map"]["data"][0].to(ood_map.device)
        if truth.shape != ood_map.shape:
            raise ConfigError(
                f"{path}: gt_ood_map is {tuple(truth.shape)} and ood_map {tuple(ood_map.shape)}; "
                "both must have the size of the original image"
            )
        return ood_map, truth


def label_confusion(
    sample: dict, predicted: Tensor, num_classes: int, path: str
) -> np.ndarray | None:
    """(K, K) int64, rows are true classes; None if the sample has no labels."""
    if "gt_sem_seg" not in sample:
        return None
    labels = sample["gt_sem_seg"]["data"][0].to(predicted.device)
    if labels.shape != predicted.shape:
        raise ConfigError(
            f"{path}: the labels are {tuple(labels.shape)} and the prediction "
            f"{tuple(predicted.shape)}; load annotations after Resize in the test pipeline"
        )
    valid = labels != _VOID
    labels, predicted = labels[valid].long(), predicted[valid].long()
    for what, values in (("a label", labels), ("a predicted class", predicted)):
        if values.numel() and int(values.max()) >= num_classes:
            raise ConfigError(
                f"{path}: {what} is {int(values.max())}, but the data set has {num_classes} "
                "classes; num_classes of the decode head must be the number of classes in metainfo"
            )
    pairs = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes).cpu().numpy()
