"""Tell whether images that go into a batch as they are have one size."""

from __future__ import annotations

from collections import Counter

from negvision.data.check.scan import DatasetScan

# Of so many different sizes one image each goes through the pipeline.
_MOST_SIZES = 64


def count_odd_sizes(scan: DatasetScan) -> None:
    """Count images with one class whose pipeline gives them another size than most.

    Models that recognize or classify take one size, and none says so before it fails. Nothing is
    guessed from the pipeline: one image of each size goes through all of it.
    """
    if scan.counted != "images" and not scan.compares_images():
        return
    if len(scan.sizes) < 2:
        return
    common = sorted(scan.sizes.items(), key=lambda item: -item[1][0])[:_MOST_SIZES]
    shapes = {size: _shape_of(scan, first) for size, (_, first) in common}
    counts: Counter[tuple] = Counter()
    for size, (count, _) in common:
        if shapes[size] is not None:
            counts[shapes[size]] += count
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for size, (count, first) in common:
        if shapes[size] not in (None, usual):
            scan.faults.add(
                "image that the pipeline gives another size than most",
                f"{scan.sample_name(first)}: {_text(size)} becomes {_text(shapes[size])}, most "
                f"become {_text(usual)}",
                count=count,
            )


def _shape_of(scan: DatasetScan, index: int) -> tuple[int, int] | None:
    """(H, W) of what the pipeline gives; None where it gives nothing."""
    try:
        return tuple(scan.dataset[index]["inputs"].shape[-2:])
    except Exception:  # what loads has been checked, and the rest of a pipeline is not looked at
        return None


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
