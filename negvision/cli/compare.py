"""``negvision compare A B``: is B better than A, and could these images show it?"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from negvision.cli.arguments import (
    add_data_arguments,
    add_trust_checkpoint,
    announce,
    checked,
    positive_int,
)
from negvision.cli.output import require_page, write_page
from negvision.cli.report import run_names
from negvision.errors import ConfigError, UserError

HELP = "tell whether one detector is better than another, or the images cannot show it"
DESCRIPTION = (
    "Compare detectors on the same images: a paired 95 % interval of every COCO figure, the "
    "probability that the second is better, how many images would show a difference, and a page "
    "with the images whose results differ most. Each side is a work dir, a checkpoint, or COCO "
    "results (.json); several trainings of one recipe are joined by commas."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    side = "work dir, checkpoint or results; A,B,C: trainings of one recipe with several seeds"
    add("sides", nargs="+", metavar="SIDE", help=side)
    truth = "COCO annotations of results (default: those of the test set of a run)"
    add("--ann-file", metavar="FILE.json", help=truth)
    add("--images", metavar="DIR", help="folder of the images of results, for the page")
    add("--metric", choices=["bbox", "segm"], default="bbox", help="compare boxes or masks")
    draws = "how often the images are drawn anew (default: 1000)"
    add("--resamples", type=positive_int, default=1000, metavar="N", help=draws)
    group = "key of the images of --ann-file whose values are drawn together, such as video_id"
    add("--group-by", metavar="KEY", help=group)
    groups = "also compare groups: size, or a key of the images of --ann-file, such as scene"
    add("--groups", metavar="KEY", help=groups)
    page = checked(str, "FILE.html", lambda name: name.endswith((".html", ".htm")))
    add("--out", type=page, default="compare.html", metavar="FILE.html", help="the page")
    add_data_arguments(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print, and write the page; 0."""
    members = [[one for one in side.split(",") if one] for side in args.sides]
    if len(members) < 2 or not all(members):
        raise UserError(
            "negvision compare needs at least two sides, such as work_dirs/a work_dirs/b; "
            "trainings that are joined by commas are one side"
        )
    every = [one for side in members for one in side]
    for path in every:
        if not Path(path).exists():
            raise UserError(f"{path}: there is no such work dir, checkpoint or file of results")
    names = iter(run_names(every))
    named = [{path: next(names) for path in side} for side in members]
    out = Path(args.out)
    require_page(out)
    announce(" and ".join(args.sides))
    from negvision.data.formats.coco_file import find_classes
    from negvision.detection.metrics.coco_evaluation import CocoDetections
    from negvision.report.comparison import (
        Comparison,
        Contender,
        common_truth,
        read_results,
    )
    from negvision.visualization import shown_path

    masks = args.metric == "segm"
    tested = {path: _test(path, args, masks) for path in every if not path.endswith(".json")}
    hooks = {path: hook for path, (hook, _) in tested.items()}
    evaluators = {path: evaluator for path, (_, evaluator) in tested.items()}
    ann_file, truth = common_truth(
        {path: one["ann_file"] for path, one in evaluators.items()}, args.ann_file
    )
    classes = _common_classes(hooks)
    _, ids = find_classes(ann_file, truth, classes)
    known = {image["id"] for image in truth["images"]}
    contenders = []
    for side in named:
        trainings = []
        for path in side:
            if path in hooks:
                hook = hooks[path]
                strange = [one for one in hook.paths if one not in known]
                if strange:
                    raise ConfigError(
                        f"{path}: {len(strange):,} of the {len(hook.paths):,} images tested are "
                        f"not in {ann_file} (the first: id {strange[0]!r})"
                    )
                own = find_classes(ann_file, truth, hook.classes)[1]
                trainings.append(CocoDetections.of_images(list(hook.images.values()), own))
            else:
                trainings.append(read_results(path, truth, ids, masks))
        contenders.append(Contender(_side_name(list(side.values())), trainings))
    options = {}
    for one in list(evaluators.values())[:1]:
        options = {key: one[key] for key in ("max_dets", "area_limits") if key in one}
    comparison = Comparison.of(
        contenders,
        truth,
        ann_file,
        classes,
        args.metric,
        args.resamples,
        args.group_by,
        args.groups,
        **options,
    )
    print(comparison.text())
    paths, read = {}, None
    if hooks:
        first = next(iter(hooks.values()))
        paths, read = first.paths, first.read
    elif args.images:
        paths = {
            image["id"]: str(Path(args.images) / image["file_name"])
            for image in truth["images"]
            if "file_name" in image
        }
    write_page(out, comparison.page(paths, read, shown_path(ann_file)))
    print(f"page  {shown_path(out)} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _side_name(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _common_classes(hooks) -> list[str] | None:
    """The classes of the runs, which may have them in different orders; None without runs."""
    classes = {path: list(hook.classes) for path, hook in hooks.items()}
    if not classes:
        return None
    first, *others = classes
    for path in others:
        if set(classes[path]) != set(classes[first]):
            extra = sorted(set(classes[path]) ^ set(classes[first]))
            raise ConfigError(
                f"{first} and {path} have different classes ({', '.join(map(repr, extra[:10]))} "
                "are in one of them), so their AP is of different things"
            )
    return classes[first]


def _test(path: str, args: argparse.Namespace, masks: bool):
    """Test a run or checkpoint; its hook and the arguments of its evaluator."""
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.checkpoints.finding import find_model
    from negvision.engine.prepare import prepare_config
    from negvision.report.comparison import PredictionsHook
    from negvision.report.run_evaluation import evaluator_of, runner_of_test

    checkpoint = find_model(path)
    given = argparse.Namespace(**{**vars(args), "config": checkpoint})
    hook = PredictionsHook(masks)
    with tempfile.TemporaryDirectory(prefix="negvision_compare_") as folder:
        cfg = prepare_config(given)
        evaluator = evaluator_of(cfg)
        if "ann_file" not in evaluator:
            raise ConfigError(
                f"{path}: its test_evaluator has no ann_file, so it is not a detector with COCO "
                "annotations; negvision compare compares detectors"
            )
        with captured_pycocotools():
            runner = runner_of_test(cfg, checkpoint, Path(folder))
            runner.register_hook(hook)
            runner.test()
    return hook, evaluator
