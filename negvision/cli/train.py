"""``negvision train CONFIG``: train a model, evaluating it as the config says."""

import argparse
from pathlib import Path

from mmengine.config import Config

from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.config.options import add_training_arguments, apply_training_arguments
from negvision.engine.config.reading import add_common_arguments
from negvision.engine.faults import faults_explained
from negvision.engine.interruption import EXIT_INTERRUPTED, TrainingInterrupted
from negvision.engine.parallel.failures import reports_to_launcher
from negvision.engine.parallel.launch import leave_processes
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import CheckpointError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="negvision train", description="Train a model.")
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="CKPT",
        help="go on from a checkpoint; without a value from the newest whole one in the work dir; "
        "auto: from that, or from the start where there is none",
    )
    add_training_arguments(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def _set_resume(cfg: Config, resume: str, trust: bool) -> None:
    if resume not in ("", "auto"):
        if "://" not in resume and not Path(resume).is_file():
            raise CheckpointError(f"--resume {resume}: there is no such file")
        if resume.endswith(".safetensors"):
            raise CheckpointError(
                f"--resume {resume}: published weights have no training to go on with. Begin a new "
                f"one from them: --cfg-options load_from={resume}"
            )
        cfg.resume, cfg.load_from = True, resume
        return
    newest = find_resume_checkpoint(cfg.work_dir, trust)
    if newest is not None:
        cfg.resume, cfg.load_from = True, str(newest)
    elif not resume:
        raise CheckpointError(
            f"--resume: no checkpoint (*.pth) in {cfg.work_dir!r}. Train without --resume, name a "
            "file (--resume FILE), or begin where there is none (--resume auto)"
        )


@reports_user_errors
@reports_to_launcher
def main(argv: list[str] | None = None) -> int:
    """Train.

    Returns:
        0; 2 after a user error, which is printed; :data:`EXIT_INTERRUPTED` (75) where a signal
        ended the run, whose state was saved.
    """
    args = _parse(argv)
    cfg = prepare_config(args)
    apply_training_arguments(cfg, args)
    if args.resume is not None:
        _set_resume(cfg, args.resume, args.trust_checkpoint)
    with captured_pycocotools(), faults_explained(cfg.work_dir):
        runner = build_runner(cfg, ("train", "val"))
        try:
            runner.train()
        except TrainingInterrupted as interruption:
            runner.logger.warning(str(interruption))
            leave_processes()
            return EXIT_INTERRUPTED
    leave_processes()
    return 0
