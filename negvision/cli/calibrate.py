"""``negvision calibrate CONFIG CKPT``: scores that are probabilities."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negvision.cli.arguments import (
    add_data_arguments,
    add_model,
    add_trust_checkpoint,
    announce,
    settle_model,
)
from negvision.errors import CheckpointError
from negvision.files import check_writable

if TYPE_CHECKING:
    from negvision.report.comparison import PredictionsHook

HELP = "scale the scores of a model by class, so that they are probabilities"
DESCRIPTION = (
    "Fit a scale to the scores of each class of a detector, classifier or segmentor on the "
    "validation set and store it, with the weights, in a checkpoint. Tests, predictions and "
    "exported models apply it. AP by class, accuracy and IoU stay."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    split = "dataset to use (default: val); the test set is then no independent test"
    add("--split", choices=["val", "test"], default="val", help=split)
    add("--out", metavar="FILE", help="default: <checkpoint>_calibrated.pth")
    add_data_arguments(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; 0."""
    settle_model(args)
    source = Path(args.checkpoint)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    if source.suffix == ".onnx":
        raise CheckpointError(f"{source}: calibrate the checkpoint, and export it again")
    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_calibrated.pth")
    check_writable(target)
    announce(args.config)
    import numpy as np

    from negvision.compat.patches import captured_pycocotools
    from negvision.data.reliability import fit_temperatures, reliability
    from negvision.engine.calibration import LabeledScoresHook, save_with_meta
    from negvision.engine.checkpoints.loading import load_checkpoint_file
    from negvision.engine.prepare import prepare_config
    from negvision.report.comparison import PredictionsHook
    from negvision.report.run_evaluation import evaluator_of, runner_of_test
    from negvision.visualization import shown_path

    cfg = prepare_config(args)
    for part in ("dataloader", "evaluator"):
        cfg[f"test_{part}"] = cfg.get(f"{args.split}_{part}")
    evaluator = evaluator_of(cfg) if cfg.test_evaluator else {}
    boxes = "ann_file" in evaluator
    checkpoint = load_checkpoint_file(source, "cpu", args.trust_checkpoint)
    if "calibration" in (checkpoint.get("meta") or {}):
        raise CheckpointError(f"{source}: is calibrated already; name the checkpoint it came from")
    hook: Any = PredictionsHook(masks=False) if boxes else LabeledScoresHook(args.split)
    prefix = "negvision_calibrate_"
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, captured_pycocotools():
        runner = runner_of_test(cfg, source, Path(folder))
        runner.register_hook(hook)
        runner.test()
    if boxes:
        calibration, added, sides = _of_boxes(evaluator["ann_file"], hook)
    else:
        logits, labels = hook.collected()
        calibration, sides = fit_temperatures(logits, labels), []
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        hits = logits.argmax(1) == labels
        for one in (probabilities, calibration.of_probabilities(probabilities)):
            sides.append(reliability(one.max(1), hits, from_score=0))
        added = calibration.as_meta()
    save_with_meta(source, target, added, runner.model, args.trust_checkpoint)
    width = max(map(len, hook.classes))
    scales = zip(hook.classes, calibration.temperatures, calibration.offsets, strict=True)
    for name, temperature, offset in scales:
        line = f"{name:<{width}}  temperature {temperature:.3f}"
        print(line + f"  offset {offset:+.3f}" * boxes)
    before, after = sides
    print(
        f"ECE    {before.error:.3f} before, {after.error:.3f} after, on the same images\n"
        f"saved  {shown_path(target)}"
    )
    return 0


def _of_boxes(ann_file: str, hook: PredictionsHook):
    """The calibration of a detector, what is stored, and reliability before and after."""
    import numpy as np

    from negvision.data.formats.coco_file import find_classes
    from negvision.data.reliability import fit_calibration, reliability
    from negvision.detection.metrics.box_matching import best_threshold
    from negvision.detection.metrics.coco_annotations import load_coco_annotations
    from negvision.detection.metrics.coco_evaluation import CocoDetections
    from negvision.detection.metrics.error_kinds import error_kinds

    truth = load_coco_annotations(ann_file)
    _, ids = find_classes(str(ann_file), truth, hook.classes)
    detections = CocoDetections.of_images(list(hook.images.values()), ids)
    found = error_kinds(truth, detections, ids)
    # From places among the ascending ids to labels of the model.
    labels = np.array([ids.index(one) for one in found.category_ids])[found.labels]
    calibration = fit_calibration(found.scores, found.hits, labels, len(ids))
    scores = calibration.apply(found.scores, labels)
    objects = sum(one["category_id"] in ids and not one["iscrowd"] for one in truth["annotations"])
    best = best_threshold(scores, found.hits, objects)
    added = calibration.as_meta() | (best.as_meta() if best is not None else {})
    return calibration, added, [reliability(one, found.hits) for one in (found.scores, scores)]
