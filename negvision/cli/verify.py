"""``negvision verify A B --model M``: do two images show one person?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_face_model

if TYPE_CHECKING:
    from negvision.inference.inferencer import Inferencer

HELP = "tell whether two images show one person"
DESCRIPTION = (
    "Compare the faces in two images. The verdict needs a threshold: that of the model, which "
    "`negvision calibrate-faces` stores, or --threshold."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", help="image of a face")
    parser.add_argument("other", help="another image")
    add_threshold(parser)
    add_face_model(parser)


def add_threshold(parser: argparse.ArgumentParser) -> None:
    text = "cosine from which two images show one person; default: that of the model, if any"
    parser.add_argument("--threshold", type=float, metavar="COSINE", help=text)


def open_model(args: argparse.Namespace) -> Inferencer:
    """The face recognizer of the arguments; ConfigError if it is for something else."""
    from negvision.inference.inferencer import Inferencer

    model = Inferencer(
        args.model,
        device=args.device,
        face_detector=args.face_detector,
        main_face=args.main_face,
        trust_checkpoint=args.trust_checkpoint,
    )
    model.require_faces()
    return model


def source_of(threshold: float | None, model: Inferencer) -> str:
    """Where the threshold in use comes from."""
    if threshold is not None:
        return f"threshold {threshold:g}, as given"
    if model.face_threshold is None:
        return "no threshold is known: choose one with negvision calibrate-faces, or --threshold"
    return f"threshold {model.face_threshold}"


def run(args: argparse.Namespace) -> int:
    """Compare; 0, whatever the verdict."""
    model = open_model(args)
    found = model.verify(args.one, args.other, args.threshold)
    verdict = {None: "none", True: "the same person", False: "two people"}[found.same]
    print(f"similarity  {found.similarity:.4f}")
    print(f"verdict     {verdict} ({source_of(args.threshold, model)})")
    return 0
