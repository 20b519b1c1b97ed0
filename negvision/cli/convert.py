"""``negvision convert SRC --out DIR --to FORMAT``: write annotated images in another format."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from pathlib import Path

from negvision.cli.arguments import checked
from negvision.cli.data_options import FORMATS
from negvision.cli.output import progress_bar
from negvision.errors import ConfigError, DatasetError, text_table

HELP = "write a folder of annotated images as COCO, YOLO or Pascal VOC"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = "folder of images and annotations in any known format, or its data.yaml, JSON, ..."
    add("source", type=Path, metavar="SRC", help=source)
    add("--to", choices=("coco", "yolo", "voc"), required=True, help="format to write")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--format", choices=FORMATS, help="format of SRC, if it has several")
    share = checked(float, "a number from 0 to below 1", lambda value: 0 <= value < 1)
    part = "share of the images for {}, if SRC has no splits: by content, similar images together"
    add("--val", type=share, metavar="SHARE", help=part.format("val"))
    add("--test", type=share, metavar="SHARE", help=part.format("test"))
    zero = (
        "VOC: coordinates start at 0 and exclude xmax and ymax; VOC's start at 1 and include them"
    )
    add("--zero-based", action="store_true", help=zero)
    add("--skip-bad", action="store_true", help="leave out what is bad, and count it")
    add("--link", action="store_true", help="link to the images instead of copying them")
    add("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Write the files and print counts; 0."""
    from negvision.data.formats.converting import WRITERS, convert, with_objects
    from negvision.data.formats.folder import read_folder
    from negvision.data.splits import staged_outputs
    from negvision.data.splits.content import SPLIT_FILE, complete_splits, with_overlaps

    data = with_objects(
        read_folder(args.source, args.format, zero_based=args.zero_based, skip_bad=args.skip_bad)
    )
    if args.out.resolve() in (data.root.resolve(), *data.root.resolve().parents) or (
        args.out.resolve().is_relative_to(data.root.resolve())
    ):
        raise DatasetError(
            f"--out {args.out} and {data.root} lie in each other: a folder has one format; name "
            "another folder"
        )
    bar = functools.partial(progress_bar, description="comparing images")
    shares = {name: share for name in ("val", "test") if (share := getattr(args, name))}
    if shares:
        _refuse_shares(args.source, data.splits, shares)
    if shares or (data.root / SPLIT_FILE).is_file():
        data = complete_splits(data, args.val or 0.0, args.test or 0.0, bar)
    else:
        data = with_overlaps(data, bar)
    with staged_outputs(args.out, WRITERS[args.to][1], args.overwrite) as folder:
        lost = convert(data, args.to, folder, args.link)
    rows = [[name or "all", *counts] for name, *counts in data.counts()]
    print(text_table(["split", "images", "background", "objects", "ignored"], rows))
    print(f"\nread as  {data.format}\nclasses  {len(data.classes)}: {', '.join(data.classes)}")
    for assumption in data.assumptions:
        print(f"assumed  {assumption}")
    for title, notes in (("read", data.notes), (f"not held by {args.to}", lost)):
        if notes:
            print(f"\n{title}:\n{notes.report()}")
    print(f"\nwritten to {args.out}")
    return 0


def _refuse_shares(source: Path, splits: Iterable[str], shares: Iterable[str]) -> None:
    """Raise ConfigError if one of ``shares`` would not act: a folder keeps the splits it has."""
    given = list(splits)
    for name in shares:
        # A single split counts as none; where there are train and test, val is taken from train.
        if len(given) > 1 and (name == "test" or {"train", "val"} <= set(given)):
            raise ConfigError(
                f"--{name}: {source} has the splits {', '.join(given)}, which are kept. Leave out "
                f"--{name}"
            )
