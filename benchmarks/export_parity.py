"""Exported models and PyTorch: differences on 64 generated images, and metrics of the test sets.

Each model is written as ONNX. Both run on the same images, resized as the config says and half as
large again, in batches of 1 and 8; then ``tools/test.py`` evaluates both. Models without a
checkpoint get random weights and are not evaluated::

    python benchmarks/export_parity.py --checkpoints atss=work_dirs/atss_digits/iter_2400.pth
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from harness import arguments, write_results
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
IMAGES, BATCH_SIZES, LARGER = 64, (1, 8), 1.5
# By name the config, and the metrics that are printed.
MODELS = {
    "atss": ("configs/quickstart/atss_digits.py", ("coco/bbox_mAP",)),
    "faster_abet": ("configs/abet/cards_abet.py", ("ood/auroc", "ood/id_ap")),
    "deeplab_abet": ("configs/abet/camvid_abet.py", ("ood/auroc", "ood/mIoU")),
    "unpg": ("configs/quickstart/unpg_glyphs.py", ("verification/accuracy",)),
}
# Logged by an evaluation besides its metrics.
_NOT_METRICS = ("time", "data_time", "step", "seconds", "n_")


def main() -> int:
    """Compare, print and write; 1 if a difference is beyond the tolerance of an export."""
    parser = arguments(__doc__, "export_parity")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--checkpoints", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--data-roots", nargs="+", default=[], metavar="NAME=DIR")
    args = parser.parse_args()
    checkpoints, roots = (
        dict(pair.split("=", 1) for pair in pairs) for pairs in (args.checkpoints, args.data_roots)
    )
    rows = {}
    for name in args.models:
        rows[name] = measured(name, checkpoints.get(name), roots.get(name))
        print(summary(name, rows[name]), flush=True)
    results = {"images": IMAGES, "batch_sizes": BATCH_SIZES, "opset": OLDEST_OPSET}
    write_results("export_parity", {**results, "models": rows}, args.out)
    return int(any(size["beyond"] for row in rows.values() for size in row["sizes"]))


def measured(name: str, checkpoint: str | None, data_root: str | None) -> dict:
    """Differences at each size, and the metrics of both on the test set."""
    config, printed = MODELS[name]
    cfg = load_config(ROOT / config)
    check_config(cfg)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = Path(checkpoint) if checkpoint else folder / "random.pth"
        if checkpoint is None:
            torch.manual_seed(0)
            torch.save({"state_dict": build_model(cfg).state_dict()}, weights)
        file = folder / "model.onnx"
        graph, metadata = graph_and_metadata(cfg, *load_model(cfg, weights))
        save(write_onnx(graph, metadata, OLDEST_OPSET), file)
        own = metadata.preprocessing.scale
        scales = [own, tuple(int(side * LARGER) for side in own)] if own else [None]
        row = {
            "config": config,
            "printed": printed,
            "weights": weights.name if checkpoint else "random",
            "sizes": [differences(cfg, weights, file, scale, folder) for scale in scales],
        }
        if checkpoint is not None:
            before, after = (
                metrics(config, one, printed[0], data_root, folder / "work" / one.suffix[1:])
                for one in (weights, file)
            )
            row["metrics"] = {key: [before[key], after[key]] for key in before if key in after}
    return row


def differences(cfg: Config, weights: Path, file: Path, scale, folder: Path) -> dict:
    """Differences on images that are resized to ``scale``."""
    pipeline = [
        {**one, "scale": scale} if kind_of(one) == "Resize" else one for one in test_pipeline(cfg)
    ]
    cfg = cfg.copy()
    cfg.test_dataloader = {"dataset": {"type": "any", "pipeline": pipeline}}
    exported = ExportedModel(file)
    own = replace(exported.metadata.preprocessing, scale=scale)
    found = compare(
        ExportedModel.of_graph(exported.graph, replace(exported.metadata, preprocessing=own)),
        TorchModel(cfg, load_model(cfg, weights)[0]),
        sample_images.write_samples(folder, IMAGES, own.size),
        TOLERANCES["fp32"].score,
        BATCH_SIZES,
    )
    return {
        "scale": scale or own.size,
        "compared": found.compared,
        "at_a_threshold": found.borderline,
        "unmatched": found.unmatched,
        "largest": found.largest,
        "beyond": found.beyond(TOLERANCES["fp32"]),
    }


def metrics(config: str, model: Path, key: str, data_root: str | None, work: Path) -> dict:
    """The metrics that ``tools/test.py`` reports."""
    command = [sys.executable, "tools/test.py", config, str(model.resolve()), "--work-dir", work]
    command += ["--data-root", data_root] if data_root else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return {
        name: value
        for name, value in last_evaluation(work, "[0-9]*.json", key).items()
        if isinstance(value, int | float)
        and not math.isnan(value)
        and not name.rpartition("/")[2].startswith(_NOT_METRICS)
    }


def summary(name: str, row: dict) -> str:
    """A few lines to print."""
    lines = [f"{name} ({row['weights']})"]
    for size in row["sizes"]:
        values = ", ".join(f"{key} {value:.2g}" for key, value in size["largest"].items())
        lines.append(
            f"  {' x '.join(map(str, size['scale']))}: {size['compared']:,} compared, "
            f"{size['at_a_threshold']} at a threshold, {size['unmatched']} unmatched; "
            f"{values}"
        )
        lines += [f"  BEYOND: {what}" for what in size["beyond"]]
    for key, (before, after) in row.get("metrics", {}).items():
        if key in row["printed"] or abs(after - before) > 1e-3:
            lines.append(f"  {key}: {before:.4%} in PyTorch, {after:.4%} exported")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
