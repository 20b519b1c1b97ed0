"""ArcFace and CosFace on a part of LFW with and without UNPG: same network, budget, seeds, data.

Trains each config once per seed, verifies the 600 pairs of LFW's first fold (people outside the
training set), writes ``benchmarks/results/lfw112.json`` and prints a table. Runs whose results are
already in the work dir are not repeated::

    NEGVISION_DATA=... python benchmarks/lfw_table.py --seeds 0 1 2
"""

from __future__ import annotations

from pathlib import Path

from training_runs import last_evaluation, tabulate

CONFIGS = {
    "ArcFace": "configs/unpg/lfw112_arcface.py",
    "ArcFace + UNPG": "configs/unpg/lfw112_arcface_unpg.py",
    "CosFace": "configs/unpg/lfw112_cosface.py",
    "CosFace + UNPG": "configs/unpg/lfw112_cosface_unpg.py",
}
METRICS = {
    "accuracy": "accuracy",
    "TAR at FAR 1e-2": "tar@far=1e-2",
    "overlap": "overlap",
    "AUC": "auc",
}


def read_metrics(work: Path) -> dict[str, dict[str, float]]:
    """The metrics of the last evaluation, in percent."""
    found = last_evaluation(work / "train", "vis_data/scalars.json", "verification/accuracy")
    return {
        "pairs": {n: round(100 * found[f"verification/{key}"], 2) for n, key in METRICS.items()}
    }


def format_run(run: dict) -> str:
    """One line about a run."""
    values = ", ".join(f"{name} {value:.1f}" for name, value in run["pairs"].items())
    return f"{values} ({run['train_seconds']:.0f} s)"


if __name__ == "__main__":
    tabulate("lfw112", __doc__, CONFIGS, read_metrics, format_run, ("pairs",), test=False)
