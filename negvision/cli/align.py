"""``negvision align FOLDER --face-detector FILE --out DIR``: crop and align faces."""

import argparse
import os
from pathlib import Path

from negvision.cli.arguments import add_face_detector, positive_int
from negvision.cli.output import progress_bar
from negvision.errors import DatasetError, Problems, UserError
from negvision.files import atomic_write, check_writable

HELP = "cut aligned faces out of photographs"
DESCRIPTION = (
    "Write the face of each photograph, aligned by five points as recognizers take it, under the "
    "same name. Photographs without a face, or with several, are listed in not_aligned.txt."
)
_LIST = "not_aligned.txt"
# Written as they are named; all others as PNG.
_WRITTEN = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", help="photographs, also in folders")
    add("--out", required=True, metavar="DIR", help="folder to write to")
    size = "side of the crops in pixels; default: 112"
    add("--size", type=positive_int, default=112, metavar="N", help=size)
    add_face_detector(parser, required=True)


def run(args: argparse.Namespace) -> int:
    """Align; 0, or 1 if a photograph is listed as not aligned."""
    import cv2

    from negvision.inference.runtime.face_detector import FaceDetector
    from negvision.inference.runtime.images import load

    root, out = Path(args.folder), Path(args.out)
    names = _images(root)
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--out {out}: this is in {root}, whose photographs it would join")
    check_writable(out / _LIST)
    detector = FaceDetector(args.face_detector, main_only=args.main_face)
    problems, lines = Problems(), []
    for name in progress_bar(names, "aligning"):
        try:
            image = load(root / name)
            crop = detector.crop(image, name, args.size)
        except DatasetError as error:
            problems.add(error.kind or "image that cannot be read", str(error))
            lines.append(f"{name}\t{error.kind or error}\n")
            continue
        target = out / name
        if target.suffix.lower() not in _WRITTEN:
            target = target.with_name(f"{target.name}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = target.suffix
        done, data = cv2.imencode(suffix, crop, [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not done:
            raise UserError(f"{target}: OpenCV writes no {suffix} here")
        with atomic_write(target) as partial:
            partial.write_bytes(data.tobytes())
    with atomic_write(out / _LIST) as partial:
        partial.write_text("".join(lines), encoding="utf-8", errors="replace")
    print(f"{len(names) - len(lines):,} of {len(names):,} faces aligned: {out}")
    if problems:
        print(f"listed in {out / _LIST}, so the exit status is 1: {problems.summary()}")
    return 1 if problems else 0


def _images(root: Path) -> list[str]:
    """The images below ``root``, as paths relative to it."""
    from negvision.data.images.listing import PassedOver, is_stray

    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    passed_over, found = PassedOver(), []
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not is_stray(name))
        place = Path(folder).relative_to(root)
        found += [str(place / name) for name in passed_over.named(sorted(names))]
    if not found:
        raise UserError(f"{root}: the folder has no images{passed_over.but()}")
    return found
