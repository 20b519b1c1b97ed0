"""``negvision test CONFIG CKPT``: evaluate a checkpoint on the test set of a config."""

import argparse
from pathlib import Path

from mmengine.config import Config

from negvision.detection.detections_hook import DetectionsWriter
from negvision.engine.calibration import override_threshold, require_threshold
from negvision.engine.config.reading import add_common_arguments
from negvision.engine.parallel.launch import leave_processes
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import captured_pycocotools
from negvision.engine.runner import Runner
from negvision.errors import CheckpointError, ConfigError, UserError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="negvision test", description="Evaluate a checkpoint.")
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument(
        "checkpoint",
        help="checkpoint file (.pth or .safetensors), or an exported model (.onnx)",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the detections as COCO results")
    parser.add_argument("--show-dir", metavar="DIR", help="draw the predictions into this folder")
    parser.add_argument(
        "--ood-threshold",
        metavar="SCORE",
        help="mark as unknown what scores higher, or 'checkpoint' to insist on the threshold of "
        "the checkpoint, which is used by itself where there is one",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def _draw_into(cfg: Config, folder: str) -> None:
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise ConfigError(
            "--show-dir needs a hook that draws: default_hooks = "
            "dict(visualization=dict(type='negvision.DrawDetectionsHook')) in the config"
        )
    hook.draw = True
    # The hook joins a relative folder to the one before, once for each image.
    hook.test_out_dir = str(Path(folder).absolute())


def _use_threshold(runner: Runner, args: argparse.Namespace) -> None:
    runner.load_or_resume()
    if args.ood_threshold == "checkpoint":
        require_threshold(runner.model, args.checkpoint)
        return
    try:
        override_threshold(runner.model, float(args.ood_threshold))
    except ValueError:
        raise UserError(
            f"--ood-threshold {args.ood_threshold}: give a number, or the word checkpoint"
        ) from None


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Evaluate; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    if args.out is not None and not args.out.endswith(".json"):
        raise UserError(f"--out {args.out}: detections are written as COCO results, FILE.json")
    if "://" not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    cfg = prepare_config(args)
    if args.checkpoint.endswith(".onnx"):
        from negvision.inference.exported_network import put_in_place

        put_in_place(cfg, args.checkpoint)
    else:
        cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show_dir is not None:
        _draw_into(cfg, args.show_dir)
    with captured_pycocotools():
        runner = build_runner(cfg, ("test",))
        if args.out is not None:
            runner.register_hook(DetectionsWriter(args.out))
        if args.ood_threshold is not None:
            _use_threshold(runner, args)
        runner.test()
    leave_processes()
    return 0
