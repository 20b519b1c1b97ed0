"""``negvision make-ood-split TASK INPUT --held-out CLASS...``: hold classes out of a dataset."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_debug
from negvision.errors import DatasetError, MissingDataError, text_table

if TYPE_CHECKING:
    from negvision.data.splits import LabeledImage

HELP = "hold classes out of training, to serve as unknowns in the evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--held-out", nargs="+", required=True, metavar="CLASS", help="names of classes"
    )
    common.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    common.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_debug(common)

    def add_task(name: str, split: Callable, text: str) -> Callable:
        task = tasks.add_parser(name, parents=[common], help=text)
        task.set_defaults(split=split)
        return task.add_argument

    add = add_task("detection", _detection, "a COCO json: ANN_id, ANN_ood and ANN_mixed.json")
    test = "data to evaluate on (default: the same)"
    add("ann", type=Path, metavar="ANN", help="COCO annotations to train on")
    add("--test", type=Path, metavar="ANN", help=test)
    add = add_task("segmentation", _segmentation, "label images: masks/, ood/ and images.txt")
    drop = "drop images with held-out pixels instead of making those pixels void"
    add("--labels", type=Path, required=True, metavar="DIR", help="folder of PNG files with ids")
    add("--classes", type=Path, required=True, metavar="FILE", help="one 'id name' per line")
    add("--void", nargs="+", default=[], metavar="CLASS", help="classes to treat as void")
    add("--drop-images", action="store_true", help=drop)
    add = add_task("classification", _classification, "one class per image: SET_id and SET_ood.txt")
    names = "names of the labels of a list, one per line"
    add("set", type=Path, metavar="SET", help="list of 'path label', or a folder of class folders")
    add("--test", type=Path, metavar="SET", help=test)
    add("--classes", type=Path, metavar="FILE", help=names)


def run(args: argparse.Namespace) -> int:
    """Write and count the parts; 0."""
    args.split(args)
    print(f"written to {args.out}")
    return 0


def _detection(args: argparse.Namespace) -> None:
    from negvision.data import splits
    from negvision.data.formats.coco_file import find_classes, read_coco_file

    paths = [args.ann, args.test or args.ann]
    contents = {path: read_coco_file(str(_existing(path))) for path in paths}
    classes: dict[str, None] = {}
    for path, content in contents.items():
        classes |= dict.fromkeys(find_classes(str(path), content, None)[0])
    remaining = splits.remaining_classes(
        list(classes), args.held_out, " and ".join(map(str, contents))
    )
    parts = {p: splits.split_coco(c, args.held_out, str(p)) for p, c in contents.items()}
    files = splits.join_coco_parts(*((path, parts[path]) for path in paths))
    with splits.staged_outputs(args.out, list(files), args.overwrite) as folder:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
    rows = []
    for name, content in files.items():
        crowds = sum(bool(a.get("iscrowd")) for a in content["annotations"])
        boxes = len(content["annotations"]) - crowds
        rows.append([name, len(content["images"]), boxes, crowds, len(content["categories"])])
    print(text_table(["file", "images", "boxes", "crowds", "classes"], rows))
    known, before = parts[args.ann].known, contents[args.ann]
    _print_left(len(known["images"]), len(before["images"]))
    _print_classes(remaining, args.held_out)
    for name, had, has in splits.lost_boxes(before, known):
        print(f"warning: {name!r} keeps {has:,} of its {had:,} boxes in training")


def _segmentation(args: argparse.Namespace) -> None:
    from negvision.data import splits
    from negvision.data.formats.label_files import read_classes_file

    ids = read_classes_file(str(_existing(args.classes)))
    splits.check_names(args.void, list(ids), "--void", str(args.classes))
    if both := [name for name in args.held_out if name in args.void]:
        raise DatasetError(f"{', '.join(both)}: in both --held-out and --void; choose one")
    meaningful = [name for name in ids if name not in args.void]
    remaining = splits.remaining_classes(meaningful, args.held_out, str(args.classes))
    if args.out.resolve().is_relative_to(_existing(args.labels).resolve()):
        raise DatasetError(f"--out {args.out} is inside --labels; name another folder")
    tables = splits.label_tables(ids, remaining, args.void)
    names = ["masks", "ood", "images.txt", "classes.txt"]
    with splits.staged_outputs(args.out, names, args.overwrite) as folder:
        counts = splits.write_label_images(args.labels, folder, ids, tables, args.drop_images)
        lines = [f"{label} {name}" for label, name in enumerate(remaining)]
        _write_lines(folder / "classes.txt", lines)
    shows = {name: count for name, count in counts.items() if count.held_out}
    dropped = shows if args.drop_images else {}
    kept = [count for name, count in counts.items() if name not in dropped]
    pixels = [sum(column) for column in zip(*kept, strict=True)]
    kinds = zip(("in-distribution", "held out", "void"), pixels, strict=True)
    rows = [[kind, number, f"{100 * number / sum(pixels):.2f} %"] for kind, number in kinds]
    print(text_table(["pixels", "number", "share"], rows))
    share = f"{len(shows):,} of {len(counts):,} images show held-out classes"
    print(f"\n{share}; {len(dropped):,} are dropped")
    _print_classes(remaining, args.held_out)


def _classification(args: argparse.Namespace) -> None:
    from negvision.data import splits

    paths = [args.set, args.test or args.set]
    sets = {path: _read_images(_existing(path), args.classes) for path in paths}
    if args.classes is None:
        classes = sorted({image.name for images in sets.values() for image in images})
    else:
        classes = _read_names(args.classes)
    where = str(args.classes or " and ".join(map(str, sets)))
    remaining = splits.remaining_classes(classes, args.held_out, where)
    files = splits.join_image_parts(*((path, sets[path]) for path in paths), remaining)
    with splits.staged_outputs(args.out, [*files, "classes.txt"], args.overwrite) as folder:
        for name, lines in {**files, "classes.txt": list(remaining)}.items():
            _write_lines(folder / name, lines)
    print(text_table(["file", "images"], [[name, len(lines)] for name, lines in files.items()]))
    _print_left(len(files[f"{args.set.stem}_id.txt"]), len(sets[args.set]))
    _print_classes(remaining, args.held_out)


def _read_images(path: Path, classes: Path | None) -> list[LabeledImage]:
    from negvision.data import splits

    if path.is_dir():
        return splits.read_image_folder(path)
    if classes is None:
        raise DatasetError(f"{path} has labels without names; name them with --classes FILE")
    return splits.read_image_list(path, _read_names(classes))


def _read_names(path: Path) -> list[str]:
    from negvision.data.formats.text_files import numbered_lines

    names = [line for _, line in numbered_lines(str(_existing(path)))]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"{path}: {', '.join(map(repr, twice))} appear more than once")
    return names


def _existing(path: Path) -> Path:
    if not path.exists():
        raise MissingDataError(f"{path} does not exist")
    return path


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _print_left(left: int, total: int) -> None:
    print(f"\nleft to train on: {left:,} of {total:,} images ({100 * left / total:.1f} %)")


def _print_classes(remaining: Sequence[str], held_out: Sequence[str]) -> None:
    print(f"classes   {len(remaining)}: {', '.join(remaining)}")
    print(f"held out  {len(set(held_out))}: {', '.join(dict.fromkeys(held_out))}")
