"""Write the detections of a test run as a COCO results file."""

import json
from pathlib import Path

from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook


class DetectionsWriter(Hook):
    """Collect the boxes that a detector predicts during a test and write them at the end.

    The file is a list of ``{"image_id", "category_id", "bbox", "score"}``, ``bbox`` being
    ``[left, top, width, height]`` in pixels of the original image, as pycocotools' ``loadRes``
    reads it. Category ids are the dataset's own where it has them (``cat_ids``), else the labels.
    Boxes with an OOD score have ``ood_score``, and with a threshold ``is_ood``, as well.

    Args:
        path: The file; folders above it are made.
    """

    priority = "LOW"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._images: list[list[dict]] = []

    def before_test_epoch(self, runner) -> None:
        self._images = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        dataset = runner.test_dataloader.dataset
        # Of several sets that were concatenated the first is the in-distribution one.
        cat_ids = getattr(getattr(dataset, "datasets", [dataset])[0], "cat_ids", None)
        for sample in outputs:
            predicted = sample.pred_instances
            boxes = predicted.bboxes.tolist()
            extras = {
                name: predicted[name].tolist()
                for name in ("ood_score", "is_ood")
                if name in predicted
            }
            entries = zip(boxes, predicted.scores.tolist(), predicted.labels.tolist(), strict=True)
            self._images.append(
                [
                    {
                        "image_id": sample.img_id,
                        "category_id": cat_ids[label] if cat_ids else label,
                        "bbox": [left, top, right - left, bottom - top],
                        "score": score,
                        **{name: values[row] for name, values in extras.items()},
                    }
                    for row, ((left, top, right, bottom), score, label) in enumerate(entries)
                ]
            )

    def after_test_epoch(self, runner, metrics=None) -> None:
        size = len(runner.test_dataloader.dataset)
        images = collect_results(self._images, size, device="cpu")
        if not is_main_process():
            return
        detections = [entry for image in images for entry in image]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(detections))
        runner.logger.info(f"{len(detections)} detections of {size} images in {self.path}")
