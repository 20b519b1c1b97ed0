"""Exported models beside PyTorch: on 64 embedded pictures, and by the figures of their test sets.

Each model is written as ONNX. It and PyTorch see the same pictures, resized as the config says and
half as large again, in batches of 1 and of 8; then ``tools/test.py`` evaluates both. Models whose
checkpoint is not given have random weights and are not evaluated::

    python benchmarks/export_parity.py --checkpoints atss=work_dirs/atss_digits/iter_2400.pth
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from harness import write_results
from mmengine.config import Config
from training_runs import last_evaluation

from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config
from negvision.export import sample_images
from negvision.export.formats import OLDEST_OPSET, save, write_onnx
from negvision.export.graphs.choice import graph_and_metadata
from negvision.export.parity import TOLERANCES, compare
from negvision.inference.pipeline import kind_of, test_pipeline
from negvision.inference.runtime import ExportedModel
from negvision.inference.torch_model import TorchModel
from negvision.inference.weights import build_model, load_model

ROOT = Path(__file__).resolve().parents[1]
PICTURES, BATCH_SIZES, LARGER = 64, (1, 8), 1.5
# By name the config, and the figures of its evaluation that are told.
MODELS = {
    "atss": ("configs/quickstart/atss_digits.py", ("coco/bbox_mAP",)),
    "faster_abet": ("configs/abet/cards_abet.py", ("ood/auroc", "ood/id_ap")),
    "deeplab_abet": ("configs/abet/camvid_abet.py", ("ood/auroc", "ood/mIoU")),
    "unpg": ("configs/quickstart/unpg_glyphs.py", ("verification/accuracy",)),
}
# What an evaluation logs beside its figures.
_NOT_FIGURES = ("time", "data_time", "step", "seconds", "n_")


def main(argv: list[str] | None = None) -> int:
    """Compare, print and write; 1 where something is beyond the tolerance of an export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--checkpoints", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--data-roots", nargs="+", default=[], metavar="NAME=DIR")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    checkpoints, roots = (
        dict(pair.split("=", 1) for pair in pairs) for pairs in (args.checkpoints, args.data_roots)
    )
    rows = {}
    for name in args.models:
        rows[name] = measured(name, checkpoints.get(name), roots.get(name))
        print(line(name, rows[name]), flush=True)
    path = write_results(
        "export_parity",
        {"pictures": PICTURES, "batch_sizes": BATCH_SIZES, "opset": OLDEST_OPSET, "models": rows},
        args.out,
    )
    print(f"written to {path}")
    return int(any(size["beyond"] for row in rows.values() for size in row["sizes"]))


def measured(name: str, checkpoint: str | None, data_root: str | None) -> dict:
    """Differences at each size, and the figures of both on the test set."""
    config, told = MODELS[name]
    cfg = load_config(ROOT / config)
    check_config(cfg)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if checkpoint is None:
            torch.manual_seed(0)
            weights = folder / "random.pth"
            torch.save({"state_dict": build_model(cfg).state_dict()}, weights)
        else:
            weights = Path(checkpoint)
        graph, metadata = graph_and_metadata(cfg, *load_model(cfg, weights))
        file = folder / "model.onnx"
        save(write_onnx(graph, metadata, OLDEST_OPSET), file)
        row = {
            "config": config,
            "told": told,
            "weights": "random" if checkpoint is None else weights.name,
            "sizes": [differences(cfg, weights, file, scale, folder) for scale in scales_of(cfg)],
        }
        if checkpoint is not None:
            work = folder / "work"
            both = [
                figures(config, one, told[0], data_root, work / one.suffix[1:])
                for one in (weights, file)
            ]
            shared = [name for name in both[0] if name in both[1]]
            row["figures"] = {name: [own[name] for own in both] for name in shared}
    return row


def scales_of(cfg: Config) -> list[tuple[int, int] | None]:
    """That of the test pipeline and one larger; None alone for a model of one size."""
    resizes = [one for one in test_pipeline(cfg) if kind_of(one) == "Resize"]
    if not resizes:
        return [None]
    scale = tuple(resizes[0]["scale"])
    return [scale, tuple(int(side * LARGER) for side in scale)]


def differences(cfg: Config, weights: Path, file: Path, scale, folder: Path) -> dict:
    """What differs on pictures that are fit into ``scale``."""
    resized = [
        {**one, "scale": scale} if kind_of(one) == "Resize" else one for one in test_pipeline(cfg)
    ]
    cfg = cfg.copy()
    cfg.test_dataloader = {"dataset": {"type": "any", "pipeline": resized}}
    exported = ExportedModel(file)
    own = exported.metadata.preprocessing
    model = ExportedModel.of_graph(
        exported.graph, replace(exported.metadata, preprocessing=replace(own, scale=scale))
    )
    drawn = sample_images.crops(PICTURES, own.size) if own.size else sample_images.scenes(PICTURES)
    found = compare(
        model,
        TorchModel(cfg, load_model(cfg, weights)[0]),
        sample_images.write_images(folder, drawn),
        TOLERANCES["fp32"].score,
        BATCH_SIZES,
    )
    return {
        "scale": scale or own.size,
        "compared": found.compared,
        "at_a_threshold": found.borderline,
        "on_one_side_alone": found.unmatched,
        "largest": found.largest,
        "beyond": found.beyond(TOLERANCES["fp32"]),
    }


def figures(
    config: str, model: Path, key: str, data_root: str | None, work: Path
) -> dict[str, float]:
    """What ``tools/test.py`` finds."""
    command = [sys.executable, "tools/test.py", config, str(model.resolve()), "--work-dir", work]
    command += ["--data-root", data_root] if data_root else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    found = last_evaluation(work, "[0-9]*.json", key)
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float)
        and not math.isnan(value)
        and not name.rpartition("/")[2].startswith(_NOT_FIGURES)
    }


def line(name: str, row: dict) -> str:
    """A few lines for people."""
    lines = [f"{name} ({row['weights']})"]
    for size in row["sizes"]:
        values = ", ".join(f"{key} {value:.2g}" for key, value in size["largest"].items())
        scale = " x ".join(map(str, size["scale"]))
        lines.append(
            f"  {scale}: {size['compared']:,} compared, {size['at_a_threshold']} at a threshold, "
            f"{size['on_one_side_alone']} on one side alone; {values}"
        )
        lines += [f"  BEYOND: {what}" for what in size["beyond"]]
    found = row.get("figures", {})
    for figure in row["told"] if found else ():
        before, after = found[figure]
        lines.append(f"  {figure}: {before:.4%} in PyTorch, {after:.4%} exported")
    if found:
        most = max(found, key=lambda figure: abs(found[figure][1] - found[figure][0]))
        before, after = found[most]
        lines.append(f"  of {len(found)} figures {most} moves most: {after - before:+.4%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
