"""OOD metrics of ten million streamed pixels: time, memory and bounds, compared to scikit-learn.

The pixels are 58 maps of 172,800 (480 x 360) with scores like AbeT's, 5 % of them OOD::

    python benchmarks/ood_stream.py
"""

from __future__ import annotations

import sys
import time

import torch
from harness import in_process_of_its_own, peak_memory, write_results

IMAGES, PIXELS = 58, 172_800
NAMES = ("binned", "exact", "scikit-learn")


def images():
    """Score and truth of each image, generated on the fly, since streams keep no pixels."""
    for index in range(IMAGES):
        generator = torch.Generator().manual_seed(index)
        is_ood = torch.rand(PIXELS, generator=generator) < 0.05
        scores = -2.3 - torch.randn(PIXELS, generator=generator).abs() * (1 + 3 * ~is_ood)
        yield scores, is_ood


def streamed(exact: bool):
    """Values by :class:`StreamingOODMetrics`."""
    from negvision.ood import StreamingOODMetrics

    stream = StreamingOODMetrics(exact)
    for scores, is_ood in images():
        stream.update(scores, is_ood)
    return stream.compute()


def by_scikit_learn() -> dict[str, float]:
    """The same metrics from all scores at once."""
    import numpy as np
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    scores, is_ood = (torch.cat(parts).numpy() for parts in zip(*images(), strict=True))

    def first_fpr(positive, values):
        fpr, tpr, _ = roc_curve(positive, values, drop_intermediate=False)
        return float(fpr[np.argmax(tpr >= 0.95)])

    return {
        "auroc": float(roc_auc_score(is_ood, scores)),
        "ap_out": float(average_precision_score(is_ood, scores)),
        "ap_in": float(average_precision_score(~is_ood, -scores)),
        "fpr95_ood": first_fpr(is_ood, scores),
        "fpr95_id": first_fpr(~is_ood, -scores),
    }


def run(name: str):
    """One evaluation: its values and bounds."""
    if name == "scikit-learn":
        return by_scikit_learn(), {}
    found = streamed(exact=name == "exact")
    return found.as_dict(), dict(found.bounds)


def main() -> None:
    """Measure, check the bounds, print and write the results."""
    argv = sys.argv[1:]
    if argv[:1] == ["--memory"]:
        print(peak_memory(lambda: run(argv[1])))
        return
    start = time.perf_counter()
    for _ in images():
        pass
    making = time.perf_counter() - start
    results = {}
    for name in NAMES:
        start = time.perf_counter()
        values, bounds = run(name)
        seconds = time.perf_counter() - start - making
        memory = int(in_process_of_its_own(__file__, "--memory", name)) / 2**20
        results[name] = {
            "seconds": round(seconds, 3),
            "memory_mib": round(memory, 1),
            "figures": values,
            "bounds": bounds,
        }
        print(f"{name:<14}{seconds:8.2f} s {memory:8.0f} MiB  {values}", flush=True)
    truth = results["scikit-learn"]["figures"]
    bounds = results["binned"]["bounds"]
    for name, value in truth.items():
        low, high = bounds[name]
        if not low - 1e-12 <= value <= high + 1e-12:
            sys.exit(f"{name}: {value} is not between {low} and {high}")
        if abs(results["exact"]["figures"][name] - value) > 1e-12:
            sys.exit(f"{name}: {results['exact']['figures'][name]} is not {value}")
    widest = max(high - low for low, high in bounds.values())
    print(f"all exact values lie within the bounds; the widest is {widest:.1e}")
    payload = {"pixels": IMAGES * PIXELS, "widest_bound": widest, "results": results}
    write_results("ood_stream", payload)


if __name__ == "__main__":
    main()
