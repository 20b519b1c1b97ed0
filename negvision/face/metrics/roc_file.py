"""An ROC on disk, as numbers or as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from negvision.engine.metrics import log_folder
from negvision.face.metrics.roc import RocCurve

_PICTURES = (".png", ".pdf", ".svg")


def checked_roc_file(roc_file: str | None) -> str | None:
    """``roc_file`` if its suffix is one that can be written, or None.

    Raises:
        ValueError: It is not.
    """
    suffixes = (".npz", *_PICTURES)
    if roc_file is not None and Path(roc_file).suffix not in suffixes:
        raise ValueError(f"roc_file must end with one of {suffixes}, got {roc_file!r}")
    return roc_file


def write_roc(curve: RocCurve, roc_file: str, title: str) -> Path:
    """Write the corners of a curve: arrays ``far``, ``tar`` and ``thresholds``, or a picture.

    Between corners the curve is straight, so that they hold all of it. A file that is there is
    replaced.

    Args:
        curve: The curve.
        roc_file: Ends with .npz, .png, .pdf or .svg. A relative path is one in the folder of the
            run's log file; without a log file, in the current folder.
        title: Of the picture.

    Returns:
        The path, which is also logged.
    """
    path = log_folder() / roc_file
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = curve.corners()
    if path.suffix == ".npz":
        np.savez_compressed(
            path,
            far=corners.far,
            tar=corners.tar,
            thresholds=corners.thresholds,
            positives=curve.positives,
            negatives=curve.negatives,
        )
    else:
        _draw(corners, path, title)
    print_log(f"ROC: {path}", logger="current")
    return path


def _draw(corners: RocCurve, path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # FAR below one false accept is 0 and has no place on a logarithmic axis.
    far = np.maximum(corners.far, 0.5 / corners.negatives)
    axes.plot(far, corners.tar)
    axes.set(
        xscale="log",
        xlim=(0.5 / corners.negatives, 1),
        ylim=(0, 1.02),
        xlabel=f"FAR ({corners.negatives:,} negative pairs)",
        ylabel=f"TAR ({corners.positives:,} positive pairs)",
        title=f"{title}: AUC {corners.auc():.4f}",
    )
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
