"""A hook that records what a training computes of each annotation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor

from negvision.audit.observers import (
    ClassificationObserver,
    FaceObserver,
    Found,
    Means,
    Observer,
    SegmentationObserver,
)
from negvision.audit.sample_numbers import Origin, SampleNumbers
from negvision.classification.classifier import ScoredClassifier
from negvision.data.sample_history import FILE_NAME, SampleHistory
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.data_order import is_endless
from negvision.errors import ConfigError, DatasetError
from negvision.face.recognizer import FaceRecognizer
from negvision.registry import HOOKS
from negvision.visualization import shown_path

# Iterations whose values stay on the device before they are copied at once.
_HELD = 50
# Weaker predictions on background are not kept.
_LEAST_SCORE = 0.05


@HOOKS.register_module()
class SampleHistoryHook(Hook):
    """Record loss and scores of every annotation by epoch, for detection, faces, images and pixels.

    ``sample_history.npz`` in the work dir (:class:`negvision.data.sample_history.SampleHistory`)
    has, for each annotation and epoch, its loss, the score of its class and of the best other one,
    and its IoU; for each image its strongest detections where nothing is labeled. Annotations that
    a network never learns, and objects that it finds although nobody labeled them, are suspects:
    ``negvision audit``.

    The hook reads what the head computes in the training step. It runs no additional forward pass,
    draws no random number, and waits for the device once in 50 iterations. The file of a resumed
    run, also within an epoch, and of a run on several ranks is that of an uninterrupted one on one
    rank, up to the differences of the trainings themselves.

    Detection: means over the priors or RoIs that train a box. Observed are negvision's
    ``ATSSHead``, ``ATSSRetinaHead``, ``ATSSFCOSHead`` and ``AbeTATSSHead``, mmdet's ``ATSSHead``
    and ``RetinaHead``, and two-stage detectors with a ``ConvFCBBoxHead``, such as Faster, Mask and
    Cascade R-CNN (its last stage). Detections on background are kept where each transform of the
    pipeline records how boxes move (flips, resizing, crops, ``negvision.RandomZoom``). Faces: heads
    with ``negvision.UNPGLoss`` that is not sharded. Classification: negvision's classifiers.
    Segmentation: decode heads of mmseg with a softmax; a row is a connected region of one class,
    of about 64 pixels or more (:func:`negvision.audit.sample_numbers.regions_of`).

    Raises:
        ConfigError: When training begins, if the model or the training set cannot be observed.

    Example:
        >>> custom_hooks = [dict(type="negvision.SampleHistoryHook")]
    """

    # Before checkpoints are written.
    priority = "NORMAL"

    def __init__(self) -> None:
        self._observer: Observer | None = None
        self._numbers: SampleNumbers | None = None
        self._restored: list[dict[str, Tensor]] = []

    def before_train(self, runner: Any) -> None:
        """Number the annotations and wrap the head."""
        dataset = runner.train_dataloader.dataset
        self._observer = _observer_of(unwrapped(runner.model))
        try:
            self._numbers = SampleNumbers(dataset, self._observer.task)
        except ConfigError:
            self._observer.close()
            raise
        self._observer.wants_found = self._numbers.traced
        self._held: list[tuple[Tensor, Means, list[Origin], Found | None]] = []
        self._rows = _Rows()
        loop, loader = runner.train_loop, runner.train_dataloader
        self._by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self._batches = len(loader)
        if is_endless(loader):
            _, world_size = runner.rank, runner.world_size
            self._batches = max(-(-len(dataset) // ((loader.batch_size or 1) * world_size)), 1)
        self._path = Path(runner.work_dir) / FILE_NAME
        self._done = self._history({})
        if runner.iter > 0 and is_main_process():
            self._continue(runner)
        self._restored = []
        if self._observer.task == "detection" and not self._numbers.traced:
            runner.logger.info(
                "SampleHistoryHook: a transform of the pipeline does not record how it moves "
                f"boxes; detections on background are not kept in {FILE_NAME}"
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note whose step this is."""
        observer = self._observer
        observer.means = observer.found = None
        samples = data_batch["data_samples"] if isinstance(data_batch, dict) else None
        if not samples or "origin" not in samples[0]:
            raise ConfigError(
                "SampleHistoryHook finds no numbers in the batch: data_samples must come from the "
                "pipeline of the training set, and collate_fn must keep them as a list "
                "(dict(type='pseudo_collate')). Remove the hook from custom_hooks, or change this"
            )
        observer.samples = samples

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Keep what the step showed, on its device."""
        observer = self._observer
        if observer.means is not None or observer.found is not None:
            origins = [sample.origin for sample in observer.samples]
            self._held.append((observer.numbers(), observer.means, origins, observer.found))
        observer.samples = observer.means = observer.found = None
        if len(self._held) >= _HELD:
            self._fetch()
        if not self._by_epoch and (runner.iter + 1) % self._batches == 0:
            self._close(runner.iter // self._batches)
            self._rows = _Rows()

    def after_train_epoch(self, runner: Any) -> None:
        """Write the file; the training by iterations is one epoch, whose last pass may be open."""
        if self._by_epoch:
            self._close(runner.epoch)
            self._rows = _Rows()
        elif runner.iter % self._batches:
            # The rows stay, for a checkpoint from which a longer run may resume.
            self._close(runner.iter // self._batches)

    def after_train(self, runner: Any) -> None:
        """Leave model and data set as they were."""
        self._observer.close()
        self._numbers.close()
        if is_main_process() and self._path.is_file():
            runner.logger.info(f"sample history  {shown_path(self._path)}")

    def rank_state(self) -> dict[str, Tensor]:
        """Rows of the open epoch on this rank; negvision's runner saves those of all ranks."""
        self._fetch()
        return self._rows.as_tensors()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take the rows of the open epoch from the checkpoint of a resumed run."""
        states = (checkpoint.get("meta") or {}).get("hooks") or []
        self._restored = [
            state[type(self).__name__] for state in states if type(self).__name__ in state
        ]

    def _continue(self, runner: Any) -> None:
        """Go on with the file, without the epochs that are trained again."""
        epoch = runner.epoch if self._by_epoch else runner.iter // self._batches
        for state in self._restored:
            self._rows.add_tensors(state)
        try:
            before = SampleHistory.load(self._path)
            if (before.task, before.digest) != (self._done.task, self._done.digest):
                raise DatasetError(
                    f"{self._path}: the annotations have changed since it was written"
                )
            self._done = before.before(epoch)
        except DatasetError as error:
            if epoch:
                runner.logger.warning(
                    f"SampleHistoryHook: {error}. The history begins with epoch {epoch + 1}"
                )

    def _fetch(self) -> None:
        """Copy what is held from the device, all at once."""
        held, self._held = self._held, []
        shown = [(numbers, means) for numbers, means, _, _ in held if means is not None]
        if shown:
            numbers = torch.cat([numbers for numbers, _ in shown]).numpy()
            means = [torch.cat(column) for column in zip(*(m for _, m in shown), strict=True)]
            table = torch.stack([column.double() for column in means], 1).cpu().numpy()
            self._rows.add_means(numbers, table)
        founds = [(origins, found) for _, _, origins, found in held if found is not None]
        if founds:
            origins = [origin for many, _ in founds for origin in many]
            parts = [torch.cat(part).cpu() for part in zip(*(f for _, f in founds), strict=True)]
            self._rows.add_found(origins, *(part.numpy() for part in parts))

    def _close(self, epoch: int) -> None:
        """Write the file with the rows of an epoch of all ranks; they join those before."""
        self._fetch()
        states = all_gather_object(self._rows.as_tensors())
        if not is_main_process():
            return
        rows = _Rows()
        for state in states:
            rows.add_tensors(state)
        whole = self._done.joined(self._history(rows.columns(epoch, self._numbers.annotations)))
        whole.save(self._path)
        self._done = whole

    def _history(self, columns: dict[str, np.ndarray]) -> SampleHistory:
        numbers = self._numbers
        return SampleHistory.of(self._observer.task, numbers.digest, numbers.classes, **columns)


class _Rows:
    """What one epoch has shown so far, one row for each occurrence of an annotation."""

    def __init__(self) -> None:
        # Number, and loss, own, other, other class and IoU.
        self._numbers: list[np.ndarray] = []
        self._means: list[np.ndarray] = []
        # Image, and class, score and box.
        self._images: list[np.ndarray] = []
        self._found: list[np.ndarray] = []

    def add_means(self, numbers: np.ndarray, means: np.ndarray) -> None:
        """Numbers (n,), and the columns of ``Means``, (n, 5); rows without a score are left out."""
        kept = (numbers >= 0) & np.isfinite(means[:, 1])
        self._numbers.append(numbers[kept])
        self._means.append(means[kept])

    def add_found(self, origins: list[Origin], scores, labels, boxes) -> None:
        """Detections (B, K) with boxes in trained images, of which those in sight are kept."""
        image, place = np.nonzero(scores >= _LEAST_SCORE)
        if not len(image):
            return
        moved = [np.eye(3) if one.homography is None else one.homography for one in origins]
        matrices = np.linalg.inv(np.stack(moved))
        x1, y1, x2, y2 = boxes[image, place].astype(np.float64).T
        corners = np.stack([[x1, x2, x1, x2], [y1, y1, y2, y2], np.ones((4, len(x1)))])
        x, y, w = np.einsum("nij,jkn->ikn", matrices[image], corners)
        x, y = x / w, y / w
        height, width = np.array([one.shape for one in origins])[image].T
        box = [
            edge.clip(0, size)
            for edge, size in zip(
                (x.min(0), y.min(0), x.max(0), y.max(0)),
                (width, height, width, height),
                strict=True,
            )
        ]
        kept = (box[2] - box[0] >= 1) & (box[3] - box[1] >= 1)
        found = np.stack([labels[image, place], scores[image, place], *box], 1)
        self._images.append(np.array([one.image for one in origins], np.int64)[image][kept])
        self._found.append(found[kept])

    def as_tensors(self) -> dict[str, Tensor]:
        """The rows, as a checkpoint may hold them."""
        return {
            "numbers": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *self._numbers])),
            "means": torch.from_numpy(np.concatenate([np.zeros((0, 5)), *self._means])),
            "images": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *self._images])),
            "found": torch.from_numpy(np.concatenate([np.zeros((0, 6)), *self._found])),
        }

    def add_tensors(self, state: dict[str, Tensor]) -> None:
        """Add what :meth:`as_tensors` returned."""
        for name, values in state.items():
            getattr(self, f"_{name}").append(values.numpy())

    def columns(self, epoch: int, ids: np.ndarray | None) -> dict[str, np.ndarray]:
        """Columns of a :class:`SampleHistory`, one row an annotation; ``ids`` by their number."""
        numbers, means, images, found = (values.numpy() for values in self.as_tensors().values())
        # Of an annotation that occurs more than once, the most convincing other class.
        order = np.lexsort((means[:, 2], numbers))
        numbers, means = numbers[order], means[order]
        unique, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
        sums = np.add.reduceat(means, starts, 0) if len(starts) else means
        averages = sums / counts[:, None]
        ids = unique if ids is None else ids[unique]
        by_id = np.argsort(ids, kind="stable")
        # At most as many as annotations, the strongest: the file stays small.
        strongest = np.sort(np.argsort(-found[:, 1], kind="stable")[: len(ids)])
        images, found = images[strongest], found[strongest]
        by_image = np.lexsort((*found.T[::-1], images))
        images, found = images[by_image], found[by_image]
        return {
            "annotation": ids[by_id],
            "epoch": np.full(len(ids), epoch),
            "loss": averages[by_id, 0],
            "own": averages[by_id, 1],
            "other": averages[by_id, 2],
            "other_class": means[starts + counts - 1, 3][by_id],
            "iou": averages[by_id, 4],
            "found_image": images,
            "found_epoch": np.full(len(images), epoch),
            "found_class": found[:, 0],
            "found_score": found[:, 1],
            "found_box": found[:, 2:],
        }


def _observer_of(model: Any) -> Observer:
    if isinstance(model, ScoredClassifier):
        return ClassificationObserver(model)
    if isinstance(model, FaceRecognizer):
        return FaceObserver(model)
    if hasattr(model, "decode_head"):
        return SegmentationObserver(model)
    if not any(hasattr(model, name) for name in ("bbox_head", "roi_head", "panoptic_head")):
        raise ConfigError(
            f"SampleHistoryHook cannot observe {type(model).__name__}: it is for detectors of "
            "mmdet, segmentors of mmseg, negvision.FaceRecognizer and negvision's classifiers. "
            "Remove the hook from custom_hooks"
        )
    from negvision.audit.box_observers import box_observer  # with mmdet, for detectors alone

    return box_observer(model)
