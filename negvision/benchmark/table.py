"""The table of a model's costs, for people."""

from collections.abc import Mapping

from negvision.benchmark.measure import Row

_HEADS = ("", "images/s", "lowest", "highest", "times eager", "peak memory")


def table(rows: Mapping[str, Row]) -> str:
    """A line a row, and below them what differs between the rows."""
    ran = {kind: row for kind, row in rows.items() if not row.failed}
    cells = [_HEADS, *(_cells(kind, row) for kind, row in ran.items())]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADS))]
    lines = [
        line[0].ljust(widths[0])
        + "".join(
            "  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        )
        for line in cells
    ]
    lines += [f"{kind}: {row.failed}" for kind, row in rows.items() if row.failed]
    return "\n".join([*(line.rstrip() for line in lines), *_notes(ran)])


def _cells(kind: str, row: Row) -> tuple[str, ...]:
    rates = (row.images_per_s, min(row.rounds), max(row.rounds))
    memory = "" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f} MiB"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (kind, *(f"{rate:.4g}" for rate in rates), ratio, memory)


def _notes(ran: Mapping[str, Row]) -> list[str]:
    first = next(iter(ran.values()))
    notes = []
    if first.boxes is not None:
        notes.append(f"{first.boxes:.0f} boxes an image")
    for kind, row in ran.items():
        if row is first:
            continue
        values = ", ".join(f"{name} {value:.2g}" for name, value in row.differences.items())
        notes.append(f"{kind}, largest differences: {values or 'nothing to compare'}")
        notes += [f"{kind} DIFFERS: {what}" for what in row.beyond]
    return notes
