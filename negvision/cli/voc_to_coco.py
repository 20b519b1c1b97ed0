"""``negvision voc-to-coco ROOT``: write COCO annotations from Pascal VOC's XML files."""

import argparse
import json
from pathlib import Path

from negvision.errors import MissingDataError, text_table

HELP = "write a COCO file for each image list of a dataset in Pascal VOC's layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="folder of Annotations, JPEGImages and ImageSets")
    lists = "lists in ImageSets/Main (default: train, val and test, as far as they exist)"
    add("--splits", nargs="+", metavar="LIST", help=lists)
    add("--out", type=Path, metavar="DIR", help="folder of the COCO files (default: ROOT/coco)")
    zero = "coordinates start at 0 and exclude xmax and ymax; VOC's start at 1 and include them"
    add("--zero-based", action="store_true", help=zero)
    add("--overwrite", action="store_true", help="replace existing COCO files")


def run(args: argparse.Namespace) -> int:
    """Write the files and print counts; 0."""
    from negvision.data.formats.voc_to_coco import IMAGES, find_splits, voc_to_coco
    from negvision.data.splits import staged_outputs

    if not args.root.is_dir():
        raise MissingDataError(f"{args.root} is not a folder")
    splits = args.splits or find_splits(args.root)
    contents = voc_to_coco(args.root, splits, args.zero_based)
    out = args.out or args.root / "coco"
    files = {f"{split}.json": content for split, content in contents.items()}
    with staged_outputs(out, list(files), args.overwrite) as folder:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
    rows = []
    for name, content in files.items():
        crowds = sum(annotation["iscrowd"] for annotation in content["annotations"])
        boxes = len(content["annotations"]) - crowds
        rows.append([name, len(content["images"]), boxes, crowds])
    print(text_table(["file", "images", "boxes", "difficult"], rows))
    names = [category["name"] for category in next(iter(contents.values()))["categories"]]
    print(f"\nclasses  {len(names)}: {', '.join(names)}")
    print(f"images   stay in {args.root / IMAGES}\nwritten to {out}")
    return 0
