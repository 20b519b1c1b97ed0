"""``negvision predict MODEL [CKPT] SOURCE ...``: what a model sees in images and videos."""

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from negvision.errors import CheckpointError, ConfigError, UserError, reports_user_errors
from negvision.inference.inferencer import CONFIG_SUFFIXES, Inferencer
from negvision.inference.output import OutputFolder
from negvision.inference.sources import IMAGE_SUFFIXES, Frame, Sources, find_sources
from negvision.inference.videos import VIDEO_SUFFIXES
from negvision.inference.writing import Writer
from negvision.visualization.sheet import shown_path


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision predict",
        usage="negvision predict MODEL.onnx SOURCE ... --out DIR [options]\n"
        "       negvision predict CONFIG CKPT SOURCE ... --out DIR [options]",
        description="Write what a model sees: boxes as COCO results, label maps or embeddings, and "
        "pictures of them.",
    )
    parser.add_argument("model", help="exported model (.onnx), or a config, then its checkpoint")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="image, video, folder of images, pattern such as 'a/**/*.jpg', number of a webcam, or "
        "with --allow-urls an address",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="SCORE",
        help="leave out boxes of a lower score; without it all that the model puts out are "
        "written, and drawn from 0.3 on",
    )
    parser.add_argument(
        "--ood-threshold",
        metavar="SCORE",
        help="mark as unknown what scores higher, or 'checkpoint' to insist on the threshold of "
        "the model, which is used by itself where there is one",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:NUMBER; default: cpu")
    parser.add_argument(
        "--frames", type=int, metavar="N", help="of each video or webcam at most; default: all"
    )
    parser.add_argument("--allow-urls", action="store_true", help="fetch images from addresses")
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="unpickle whatever a checkpoint holds; it can run any code",
    )
    args = parser.parse_args(argv)
    args.checkpoint = _take_checkpoint(args)
    return args


def _take_checkpoint(args: argparse.Namespace) -> str | None:
    """Take the checkpoint of a config off the sources."""
    if Path(args.model).suffix.lower() not in CONFIG_SUFFIXES:
        return None
    first, *rest = args.sources
    suffix = Path(first).suffix.lower()
    if Path(first).is_dir() or first.isdecimal() or suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
        raise CheckpointError(
            f"{args.model} is a config, and behind it comes its checkpoint (.pth or .safetensors), "
            f"not {first!r}:\n  negvision predict CONFIG CKPT SOURCE ..."
        )
    if not rest:
        raise UserError(f"there is no source behind the checkpoint {first!r}; name images")
    args.sources = rest
    return first


def _threshold(text: str | None) -> float | None:
    try:
        return None if text in (None, "checkpoint") else float(text)
    except ValueError:
        raise UserError(f"--ood-threshold {text}: give a number, or the word checkpoint") from None


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Predict; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    for name in ("batch_size", "frames"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: give 1 or more")
    threshold = _threshold(args.ood_threshold)
    sources = find_sources(args.sources, args.allow_urls, args.frames)
    folder = OutputFolder(args.out)
    model = Inferencer(
        args.model,
        args.checkpoint,
        device=args.device,
        score_threshold=args.score_threshold,
        ood_threshold=threshold,
        trust_checkpoint=args.trust_checkpoint,
    )
    if args.ood_threshold == "checkpoint" and model.ood_threshold is None:
        raise ConfigError(
            f"{args.checkpoint or args.model} has no OOD threshold. Choose one with "
            "tools/calibrate_ood.py and use the checkpoint that it writes, or export that one"
        )
    with Writer(folder, model, not args.no_pictures) as writer:
        # A webcam is read until somebody has seen enough.
        with (
            contextlib.suppress(KeyboardInterrupt) if sources.is_live else contextlib.nullcontext()
        ):
            _predict(model, sources, args.batch_size, writer)
        written = writer.finish()
    print(", ".join([f"{len(writer.images):,} images", *writer.results.counted()]))
    for path in written:
        print(f"  {shown_path(path)}")
    return 0


def _predict(model: Inferencer, sources: Sources, batch_size: int, writer: Writer) -> None:
    with tqdm(total=sources.count, unit=" images", leave=False, disable=None) as bar:
        for batch in _batches(sources.read(model.decode), batch_size):
            try:
                results = model.predict([frame.image for frame in batch], batch_size)
            except UserError as error:
                names = ", ".join(frame.name for frame in batch)
                raise type(error)(f"{names}: {error}") from None
            for frame, result in zip(batch, results, strict=True):
                writer.add(frame, result)
            bar.update(len(batch))


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch
