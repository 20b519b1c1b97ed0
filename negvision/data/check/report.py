"""The findings of a check, as text and as plain data."""

from __future__ import annotations

from collections import Counter

from negvision.data.check.check import DataCheck
from negvision.data.check.scan import DatasetScan
from negvision.errors import Problems

# With more classes, the text summarizes them in a line.
_MOST_ROWS = 100


def as_data(check: DataCheck) -> dict:
    """The findings for JSON."""
    return {
        "complete": not check.interrupted and all(scan.complete for scan in check.scans),
        "images": check.images,
        "number_of_problems": check.number_of_problems,
        "datasets": [_scan_data(scan) for scan in check.scans],
        "across": {
            "problems": _problems_data(check.problems),
            "notes": _problems_data(check.notes),
        },
    }


def _scan_data(scan: DatasetScan) -> dict:
    labels = range(scan.number_of_classes()) or sorted(scan.amounts)
    return {
        "splits": list(scan.splits),
        "type": str(scan.config["type"]),
        "source": scan.source,
        "loaded": scan.dataset is not None,
        "samples": scan.total,
        "read": scan.read,
        "unusable": scan.unusable,
        "problems": _problems_data(scan.problems),
        "notes": _problems_data(scan.notes),
        "sizes": [
            {"width": width, "height": height, "images": count}
            for (height, width), (count, _) in _by_count(scan)
        ],
        "counted": scan.counted,
        "classes": [
            {
                "name": scan.class_name(label),
                "label": label,
                "amount": scan.amounts[label],
                "images": scan.images_with[label],
            }
            for label in labels
        ],
        "objects_per_image": {str(n): count for n, count in sorted((+scan.per_image).items())},
    }


def _problems_data(problems: Problems) -> list[dict]:
    return [
        {"kind": kind, "count": count, "examples": problems.examples(kind)}
        for kind, count in problems.counts.most_common()
    ]


def as_text(check: DataCheck) -> str:
    """The findings as text: each dataset, then across datasets, then the verdict."""
    blocks = [_scan_text(scan) for scan in check.scans]
    if check.problems or check.notes:
        blocks.append("across datasets" + _findings_text(check.problems, check.notes))
    return "\n\n".join([*blocks, _verdict(check)])


def _scan_text(scan: DatasetScan) -> str:
    rows = {"samples": f"{scan.read:,} of {scan.total:,} read, {scan.unusable:,} of them unusable"}
    if scan.dataset is None:
        rows = {"samples": "none could be loaded"}
    sizes = _by_count(scan)
    if sizes:
        (height, width), (count, _) = sizes[0]
        widths, heights = ([size[i] for size, _ in sizes] for i in (1, 0))
        rows["sizes"] = f"{width} x {height} ({count:,} images)"
        if len(sizes) > 1:
            rows["sizes"] += (
                f" and {len(sizes) - 1:,} more, {min(widths)} ... {max(widths)} wide, "
                f"{min(heights)} ... {max(heights)} high"
            )
    objects, total = +scan.per_image, scan.amounts.total()
    # Those of an OOD set are ignore boxes.
    if objects and total:
        rows["objects"] = (
            f"{total:,}, {total / objects.total():.1f} an image, {max(objects):,} at most; "
            f"{objects[0]:,} images without"
        )
    table = ""
    if scan.amounts and max(scan.number_of_classes(), len(scan.amounts)) <= _MOST_ROWS:
        table = "\n" + _class_table(scan)
    elif scan.amounts:
        rows["classes"] = _class_line(scan.images_with)
    lines = [f"  {name:<8} {text}" for name, text in rows.items()]
    header = f"{', '.join(scan.splits)}: {scan.name}"
    return "\n".join([header, *lines]) + table + _findings_text(scan.problems, scan.notes)


def _class_table(scan: DatasetScan) -> str:
    labels = range(scan.number_of_classes()) or sorted(scan.amounts)
    rows = [("class", scan.counted, "images")]
    for label in labels:
        amounts = (scan.amounts[label], scan.images_with[label])
        rows.append((scan.class_name(label), *(f"{amount:,}" for amount in amounts)))
    if scan.counted == "images":
        rows = [row[:2] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"    {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _class_line(images_with: Counter[int]) -> str:
    counts = sorted(images_with.values())
    return (
        f"{len(counts):,} with images, {counts[0]:,} ... {counts[-1]:,} each, "
        f"{counts[len(counts) // 2]:,} in the middle"
    )


def _findings_text(found: Problems, notes: Problems) -> str:
    parts = [
        f"\n  {name}:\n" + "\n".join(f"  {line}" for line in problems.report().splitlines())
        for name, problems in (("problems", found), ("notes", notes))
        if problems
    ]
    return "".join(parts)


def _by_count(scan: DatasetScan) -> list[tuple[tuple[int, int], list[int]]]:
    return sorted(scan.sizes.items(), key=lambda item: (-item[1][0], item[0]))


def _verdict(check: DataCheck) -> str:
    count = check.number_of_problems
    found = f"{count:,} problem{'s' * (count != 1)}" if count else "no problem"
    ended = "interrupted: " if check.interrupted else ""
    total = sum(scan.total for scan in check.scans)
    of_all = f" of {total:,}" if check.interrupted else ""
    return f"{ended}{found} in {check.images:,}{of_all} images"
