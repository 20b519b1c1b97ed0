"""``negvision predict MODEL [CKPT] SOURCE ...``: run a model on images and videos."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import (
    add_device,
    add_face_detector,
    add_ood_threshold,
    add_tiles,
    add_trust_checkpoint,
    positive_int,
)
from negvision.errors import CheckpointError, ConfigError, Problems, UserError
from negvision.files import check_writable

if TYPE_CHECKING:
    from negvision.inference.inferencer import Inferencer
    from negvision.inference.runtime.results import Result
    from negvision.inference.sources import Frame, LeaveOut

# Images that get a line of their own.
_MOST_LISTED = 10
HELP = "write and draw the predictions of a model on images and videos"
DESCRIPTION = (
    "Write the predictions of a model: boxes as COCO results, classes of images, label maps or "
    "embeddings, and images with the predictions drawn on them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = (
        "negvision predict MODEL SOURCE ... --out DIR [options]\n"
        "       negvision predict CONFIG CKPT SOURCE ... --out DIR [options]"
    )
    model = "exported model (.onnx), checkpoint or work dir; or a config followed by a checkpoint"
    add("model", help=model)
    sources = "image, video, folder, pattern such as 'a/**/*.jpg', number of a webcam, or a URL"
    add("sources", nargs="+", metavar="source", help=sources)
    add("--out", required=True, metavar="DIR", help="folder to write to")
    add("--batch-size", type=positive_int, default=1, metavar="N", help="default: 1")
    drop = (
        "drop boxes with a lower score; default: write all, draw those from the score with the "
        "best F1 on the validation set, which the model stores, or 0.3"
    )
    add("--score-threshold", type=float, metavar="SCORE", help=drop)
    add_ood_threshold(parser)
    top = "classes that a classifier names for each image; default: 5"
    add("--top", type=positive_int, metavar="N", help=top)
    add_face_detector(parser)
    add_tiles(parser, "predict")
    add_device(parser)
    frames = "frames to read from each video or webcam; default: all"
    add("--frames", type=positive_int, metavar="N", help=frames)
    add("--allow-urls", action="store_true", help="download images from URLs")
    skip = "leave out what is damaged and go on; the exit status is then 1"
    add("--skip-bad", action="store_true", help=skip)
    add("--no-drawings", "--no-pictures", action="store_true", help="draw nothing")
    larger = "enlarge drawings of images below 640 pixels, so that tags hide less"
    add("--enlarge", action="store_true", help=larger)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; 0, or 1 if something was left out."""
    from tqdm import tqdm

    from negvision.inference.inferencer import Inferencer
    from negvision.inference.output import Writer
    from negvision.inference.sources import find_sources
    from negvision.inference.videos import WEBCAM_STOPPED
    from negvision.visualization import shown_path

    left_out = Problems()

    def leave_out(error: UserError) -> None:
        kind = getattr(error, "kind", "") or "image that cannot be used"
        # What a camera has shown is not thrown away.
        if not args.skip_bad and kind != WEBCAM_STOPPED:
            raise type(error)(f"{error}\nTo leave out such files and go on, add --skip-bad.")
        left_out.add(kind, str(error))

    checkpoint, paths = _split_checkpoint(args.model, args.sources)
    sources = find_sources(paths, args.allow_urls, args.frames, leave_out)
    check_writable(Path(args.out) / "images.json")
    wants_stored = args.ood_threshold == "checkpoint"
    model = Inferencer(
        args.model,
        checkpoint,
        device=args.device,
        score_threshold=args.score_threshold,
        ood_threshold=None if wants_stored else args.ood_threshold,
        top=args.top,
        face_detector=args.face_detector,
        main_face=args.main_face,
        trust_checkpoint=args.trust_checkpoint,
        tiles=args.tiles,
    )
    if wants_stored and model.ood_threshold is None:
        raise ConfigError(
            f"{checkpoint or args.model} has no OOD threshold. Choose one with negvision "
            "calibrate-ood and use the checkpoint that it writes, or export that checkpoint"
        )
    stills = 0
    bar = tqdm(total=sources.count, unit=" images", leave=False, disable=None)
    began = time.monotonic()
    with Writer(args.out, model, not args.no_drawings, args.enlarge) as writer:
        # A webcam is read until Ctrl-C.
        with contextlib.suppress(*[KeyboardInterrupt] * (sources.count is None)), bar:
            frames = iter(sources.read(model.decode, leave_out))
            while batch := list(islice(frames, args.batch_size)):
                for frame, result in _predict(model, batch, leave_out):
                    shown = writer.add(frame, result)
                    if frame.number is None:
                        stills += 1
                        if stills <= _MOST_LISTED:
                            height, width = frame.image.shape[:2]
                            bar.write(f"{frame.name}: {width} x {height}, {shown}")
                bar.update(len(batch))
        if not writer.images:
            raise UserError(f"nothing is left to predict; left out:\n{left_out.report()}")
        written = writer.finish()
    if stills > _MOST_LISTED:
        print(f"... and {stills - _MOST_LISTED:,} more images")
    for line in writer.videos():
        print(line)
    print(_speed(len(writer.images), time.monotonic() - began))
    print(writer.summary())
    for path in written:
        print(f"  {shown_path(path)}")
    if passed_over := sources.passed_over.line():
        print(f"passed over in folders: {passed_over}")
    if left_out:
        print(f"left out, so the exit status is 1: {left_out.summary()}\n{left_out.report()}")
    return 1 if left_out else 0


def _speed(images: int, seconds: float) -> str:
    """How fast it went, with all that the command did to an image.

    Example:
        >>> _speed(1, 0.5), _speed(1234, 20)
        ('1 image in 0.5 s: 2.0 images/s with reading and writing', '1,234 images in 20.0 s: 61.7 \
images/s with reading and writing')
    """
    rate = images / max(seconds, 1e-3)
    plural = "s" * (images != 1)
    return (
        f"{images:,} image{plural} in {seconds:.1f} s: {rate:.1f} images/s with reading and writing"
    )


def _predict(
    model: Inferencer, batch: list[Frame], leave_out: LeaveOut
) -> Iterator[tuple[Frame, Result]]:
    """The images of a batch with their results, without those that the model does not take."""
    try:
        results = model.predict([frame.image for frame in batch], len(batch))
    except UserError as error:
        if len(batch) > 1:
            for frame in batch:
                yield from _predict(model, [frame], leave_out)
        else:
            leave_out(type(error)(f"{batch[0].name}: {error}"))
    else:
        yield from zip(batch, results, strict=True)


def _split_checkpoint(model: str, sources: list[str]) -> tuple[str | None, list[str]]:
    """The checkpoint, which follows a config, and the other sources."""
    from negvision.inference.sources import IMAGE_SUFFIXES
    from negvision.inference.videos import VIDEO_SUFFIXES

    if Path(model).suffix.lower() != ".py":
        return None, sources
    first, *rest = sources
    suffix = Path(first).suffix.lower()
    if Path(first).is_dir() or first.isdecimal() or suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        raise CheckpointError(
            f"{model} is a config, so a checkpoint (.pth or .safetensors) must follow it, not "
            f"{first!r}:\n  negvision predict CONFIG CKPT SOURCE ..."
        )
    if not rest:
        raise UserError(f"there is no source after the checkpoint {first!r}; name images")
    return first, rest
