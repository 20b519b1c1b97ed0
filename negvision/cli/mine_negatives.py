"""``negvision mine-negatives MODEL ... FOLDER --out DIR``: the hardest images of a background."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negvision.cli.arguments import (
    add_device,
    add_trust_checkpoint,
    announce,
    fraction,
    positive_int,
)
from negvision.cli.output import progress_bar
from negvision.errors import ConfigError, UserError

HELP = "collect the images without an object in which a detector finds most"
DESCRIPTION = (
    "Collect the hardest false positives of a folder of images, none of which shows an object, as "
    "negatives for a training: negvision train DATA --negatives DIR. With several models, such as "
    "snapshots of one training, more than half of them have to agree on a box."
)
# Folders and files that are written.
_OUTPUTS = ("images", "annotations", "mined.json")
_COLUMNS = ("boxes", "scores", "labels")
# Overlap from which two boxes are the same false positive.
_SAME = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="checkpoint, work dir or exported model")
    add("folder", type=Path, metavar="FOLDER", help="images without an object, also in subfolders")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--most", type=positive_int, metavar="N", help="at most so many images, the hardest ones")
    least = "boxes from this score count; default: the threshold of each model, or 0.3"
    add("--score-threshold", type=fraction, metavar="SCORE", help=least)
    add("--link", action="store_true", help="link to the images instead of copying them")
    add("--overwrite", action="store_true", help="replace existing files")
    add_device(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Mine; 0."""
    if not args.folder.is_dir():
        raise UserError(f"{args.folder}: there is no such folder of images")
    announce(" and ".join(args.models))
    from negvision.data.formats.tree import FileTree
    from negvision.data.splits import staged_outputs
    from negvision.inference.inferencer import Inferencer
    from negvision.inference.runtime.images import read_bytes

    names = FileTree(args.folder).images
    if not names:
        raise UserError(f"{args.folder}: there is no image in it")
    options = {"device": args.device, "trust_checkpoint": args.trust_checkpoint}
    models = [Inferencer(path, **options) for path in args.models]
    for path, model in zip(args.models, models, strict=True):
        if model.task != "detection" or tuple(model.classes) != tuple(models[0].classes):
            raise ConfigError(
                f"{path}: has {model.task} of {', '.join(model.classes) or 'no classes'}; "
                f"mine-negatives takes detectors of the same classes, as {args.models[0]}"
            )
    given = args.score_threshold
    least = [model.shown_threshold.value if given is None else given for model in models]
    mined: list[dict[str, Any]] = []
    for name in progress_bar(names, "looking for false positives"):
        path = str(args.folder / name)
        image = models[0].decode(read_bytes(path), path)
        found: list[Any] = [model.predict([image])[0] for model in models]
        found = [one.above(score) for one, score in zip(found, least, strict=True)]
        if boxes := voted(found, models[0].classes):
            height, width = image.shape[:2]
            sides = {"width": width, "height": height}
            mined.append({"file_name": name, **sides, "score": boxes[0]["score"], "boxes": boxes})
    scores = ", ".join(f"{score:.3g}" for score in dict.fromkeys(least))
    if not mined:
        agreed = " that most models agree on" * (len(models) > 1)
        raise UserError(
            f"{args.folder}: none of {len(names):,} images has a false positive{agreed} with a "
            f"score from {scores}. These are no hard negatives; look for more images, or set a "
            "lower --score-threshold"
        )
    mined.sort(key=lambda one: (-one["score"], one["file_name"]))
    kept = mined[: args.most]
    with staged_outputs(args.out, _OUTPUTS, args.overwrite) as folder:
        _write(kept, models[0].classes, args.folder, folder, args.link)
    number = sum(len(one["boxes"]) for one in kept)
    print(
        f"{len(mined):,} of {len(names):,} images have false positives with scores from {scores}\n"
        f"{len(kept):,} images with {number:,} false positives in {args.out}\n"
        f"to train with them: negvision train DATA --negatives {args.out}\n"
        "Look at the boxes of mined.json first: one on a real object is no negative."
    )
    return 0


def voted(found: Sequence[Any], classes: Sequence[str]) -> list[dict]:
    """The boxes on which more than half of the models agree, by falling score.

    Args:
        found: The :class:`negvision.Detections` of each model for one image.
        classes: Names, by label.

    Returns:
        ``bbox`` (x, y, width, height in pixels), ``class`` and ``votes`` of the box with the
        highest score among those with an IoU of at least 0.5 with it, one of each model; ``score``:
        their mean over all models, 0 for those without a vote.
    """
    import numpy as np
    import torch

    from negvision.ops import pairwise_box_iou

    owner = np.repeat(np.arange(len(found)), [len(one) for one in found])
    columns = [np.concatenate([getattr(one, name) for one in found]) for name in _COLUMNS]
    order = np.argsort(-columns[1], kind="stable")
    owner, (boxes, scores, labels) = owner[order], (column[order] for column in columns)
    corners = torch.from_numpy(boxes.astype(np.float64).reshape(-1, 4))
    same = pairwise_box_iou(corners, corners).numpy() >= _SAME
    free, agreed = np.ones(len(scores), dtype=bool), []
    for row in range(len(scores)):
        members = np.flatnonzero(free & same[row]) if free[row] else np.array([], dtype=int)
        # The best box of each model; the others are duplicates.
        voters, first = np.unique(owner[members], return_index=True)
        free[members] = False
        if 2 * len(voters) > len(found):
            left, top, right, bottom = corners[row].tolist()
            agreed.append(
                {
                    "bbox": [left, top, right - left, bottom - top],
                    "class": classes[labels[row]],
                    "score": float(scores[members[first]].sum() / len(found)),
                    "votes": len(voters),
                }
            )
    return sorted(agreed, key=lambda one: -one["score"])


def _write(
    mined: Sequence[dict], classes: Sequence[str], source: Path, folder: Path, link: bool
) -> None:
    """Images, a COCO file without annotations, and the boxes found."""
    for one in mined:
        target = folder / "images" / one["file_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        origin = source / one["file_name"]
        if link:
            target.symlink_to(origin.resolve())
        else:
            shutil.copyfile(origin, target)
    keys = ("file_name", "width", "height")
    content = {
        "images": [
            {"id": n, **{key: one[key] for key in keys}} for n, one in enumerate(mined, start=1)
        ],
        "annotations": [],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "negatives.json").write_text(json.dumps(content))
    (folder / "mined.json").write_text(json.dumps(mined, indent=1) + "\n")
