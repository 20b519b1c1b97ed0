"""``negvision calibrate-faces FOLDER --model M``: when are two faces one person?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negvision.cli.arguments import add_face_model, checked, positive_int
from negvision.cli.enroll import LeftOut, add_skip_bad
from negvision.cli.verify import open_model
from negvision.errors import UserError

if TYPE_CHECKING:
    from negvision.data.face_threshold import FaceThreshold

HELP = "choose the similarity from which two faces are one person"
DESCRIPTION = (
    "Choose the threshold of a face recognizer on images of known people, so that at most the "
    "share --far of the pairs of two people reach it, and store it with the model."
)
_ATTEMPTS = (1, 3, 5, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", help="folder with a folder of images for each person, none of whom was trained")
    kind = checked(float, "a number between 0 and 1, e.g. 1e-4", lambda value: 0 < value < 1)
    far = "false accept rate: share of the pairs of two people that may reach it; default: 1e-4"
    add("--far", type=kind, default=1e-4, help=far)
    add("--out", metavar="FILE", help="default: <model>_faces.pth, or .onnx")
    add("--batch-size", type=positive_int, default=8, metavar="N", help="default: 8")
    add_skip_bad(parser)
    add_face_model(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; 0, or 1 if something was left out."""
    import numpy as np

    from negvision.data.face_threshold import choose_threshold
    from negvision.files import check_writable
    from negvision.inference.gallery import embed_files, people_in

    names, files = people_in(args.folder)
    model = open_model(args)
    source = Path(model.path)
    suffix = ".onnx" if source.suffix == ".onnx" else ".pth"
    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_faces{suffix}")
    if target.suffix != suffix:
        raise UserError(f"--out {target}: the model with its threshold is written as {suffix}")
    check_writable(target)
    left_out = LeftOut(args.skip_bad)
    vectors, kept = embed_files(model, files, args.batch_size, left_out)
    people = np.unique([names[row] for row in kept], return_inverse=True)[1]
    threshold = choose_threshold(vectors, people, args.far)
    if suffix == ".onnx":
        _write_onnx(source, target, threshold)
    else:
        _write_checkpoint(str(source), target, threshold, args.trust_checkpoint)
    print(_table(threshold))
    print(f"saved: {target}")
    return left_out.finish()


def _table(found: FaceThreshold) -> str:
    lines = [
        f"threshold  {found.value:.4f}  95 % interval {found.low:.4f} to {found.high:.4f}, by "
        "bootstrap over people",
        f"FAR        {found.far:g} of {found.pairs:,} pairs of two people, {found.people:,} people",
    ]
    if found.tar is None:
        lines.append("TAR        unknown: nobody has two images")
    else:
        lines.append(
            f"TAR        {found.tar:.4f}  95 % interval {found.tar_low:.4f} to {found.tar_high:.4f}"
        )
    tries = ", ".join(f"{count}: {found.attempts(count):.2g}" for count in _ATTEMPTS)
    return "\n".join([*lines, f"attempts   impostors accepted at least once in {tries}"])


def _write_checkpoint(source: str, target: Path, threshold: FaceThreshold, trust: bool) -> None:
    import torch

    from negvision.engine.checkpoints.fitting import face_in
    from negvision.engine.checkpoints.loading import load_checkpoint_file
    from negvision.engine.config.stored import stored_config
    from negvision.files import atomic_write

    content: dict[str, Any] = load_checkpoint_file(source, "cpu", trust)
    meta = dict(content.get("meta") or {})
    if not meta.get("cfg"):  # published weights, whose config is that of their layout
        meta["cfg"] = stored_config(source, trust).pretty_text
        face = face_in(content)
        content = {"state_dict": content if face is None else face.state}
    with atomic_write(target) as partial:
        torch.save({**content, "meta": {**meta, **threshold.as_meta()}}, partial)


def _write_onnx(source: Path, target: Path, threshold: FaceThreshold) -> None:
    import dataclasses

    from negvision.cli.export import require_exporting
    from negvision.files import atomic_write
    from negvision.inference.runtime.metadata import KEY, Metadata

    require_exporting()
    import onnx

    graph = onnx.load(str(source))
    for prop in graph.metadata_props:
        if prop.key == KEY:
            metadata = Metadata.from_json(prop.value, str(source))
            stored = threshold.as_meta()["face_threshold"]
            prop.value = dataclasses.replace(metadata, face_threshold=stored).to_json()
    with atomic_write(target) as partial:
        onnx.save(graph, str(partial))
