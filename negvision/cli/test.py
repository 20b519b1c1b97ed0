"""``negvision test CONFIG CKPT``: evaluate a checkpoint on the test set of a config."""

import argparse
import os
from pathlib import Path

from negvision.cli.arguments import (
    add_model,
    add_ood_threshold,
    add_runner_arguments,
    add_tiles,
    announce,
    checked,
    settle_model,
)
from negvision.errors import CheckpointError, ConfigError
from negvision.files import check_writable

HELP = "evaluate a checkpoint, write or draw its detections"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser, "checkpoint (.pth, .safetensors) or exported model (.onnx)")
    file = checked(str, "FILE.json", lambda name: name.endswith(".json"))
    results = "write the detections as COCO results"
    add("--out", type=file, metavar="FILE.json", help=results)
    add("--drawings", "--show-dir", metavar="DIR", help="draw the predictions into this folder")
    add_ood_threshold(parser)
    add_tiles(parser, "predict")
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0."""
    settle_model(args)
    if "://" not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    for target in filter(None, (args.out, args.drawings and os.path.join(args.drawings, "a.png"))):
        check_writable(Path(target))
    announce(args.config)
    from negvision.compat.patches import captured_pycocotools
    from negvision.detection.prediction_hooks import DetectionsWriter
    from negvision.engine.calibration import override_threshold, require_threshold
    from negvision.engine.config.options import evaluate_in_tiles
    from negvision.engine.metrics import require_truth, settle_for_test
    from negvision.engine.parallel.launch import leave_processes
    from negvision.engine.prepare import build_runner, prepare_config

    cfg = prepare_config(args)
    if args.checkpoint.endswith(".onnx"):
        from negvision.inference.exported_network import put_in_place

        put_in_place(cfg, args.checkpoint)
    else:
        cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.tiles is not None:
        evaluate_in_tiles(cfg, args.tiles)
    if args.drawings is not None:
        hook = cfg.get("default_hooks", {}).get("visualization")
        if hook is None:
            raise ConfigError(
                "--drawings needs a hook that draws: default_hooks = "
                "dict(visualization=dict(type='negvision.DrawDetectionsHook')) in the config"
            )
        # Absolute, because the hook would join a relative folder to its own for every image.
        hook.update(draw=True, test_out_dir=str(Path(args.drawings).absolute()))
    with captured_pycocotools():
        runner = build_runner(cfg, ("test",))
        settle_for_test(runner.test_loop.evaluator)
        if args.checkpoint.endswith(".onnx"):
            runner.score_threshold = runner.model.exported.score_threshold
        if args.out is not None:
            runner.register_hook(DetectionsWriter(args.out))
        elif args.drawings is None:
            require_truth(runner.test_loop.evaluator)
        if args.ood_threshold is not None:
            runner.load_or_resume()
            if args.ood_threshold == "checkpoint":
                require_threshold(runner.model, args.checkpoint)
            else:
                override_threshold(runner.model, args.ood_threshold)
        runner.test()
    leave_processes()
    return 0
