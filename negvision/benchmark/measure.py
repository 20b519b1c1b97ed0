"""Measure the ways to run a model side by side, and show them as a table."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from negvision.benchmark.memory import peak_memory
from negvision.benchmark.subjects import Setup, Subject, build
from negvision.engine.quiet import muted
from negvision.errors import UserError
from negvision.export.parity import TOLERANCES, Differences, compare_results
from negvision.inference.runtime import Detections, Metadata
from negvision.inference.runtime.metadata import Preprocessing
from negvision.inference.runtime.results import Result

Log = Callable[[str], None]

ROUNDS = 7
_HEADS = ("", "images/s", "lowest", "highest", "times eager", "peak memory")


@dataclass
class Row:
    """The cost of one way to run the model, or why it ``failed``.

    Attributes:
        rounds: Images per second in each round.
        ratio: Median of the rounds, divided by that of the first way; None for the first.
        peak_memory: Bytes, or None if unknown.
        boxes: Mean per image, or None without boxes.
        differences: Largest differences from the first way; see
            :class:`negvision.export.parity.Differences`.
        beyond: Differences beyond the tolerance of a float32 export.
    """

    failed: str = ""
    rounds: list[float] = field(default_factory=list)
    ratio: float | None = None
    peak_memory: int | None = None
    boxes: float | None = None
    differences: dict[str, float] = field(default_factory=dict)
    beyond: list[str] = field(default_factory=list)

    @property
    def images_per_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rounds)

    def to_dict(self) -> dict:
        """For JSON."""
        if self.failed:
            return {"failed": self.failed}
        return {"images_per_s": self.images_per_s, **dataclasses.asdict(self)}


def measure(
    kinds: Mapping[str, Callable[[], object] | None],
    setup: Setup,
    seconds: float,
    log: Log,
) -> dict[str, Row]:
    """Measure several ways to run a model.

    Args:
        kinds: Maps each kind of :data:`negvision.benchmark.subjects.KINDS` to what must run before
            it is built, or None. All are compared with the first.
        setup, log: Shared by all; receives the name of each step.
        seconds: For each, over all rounds.

    Raises:
        UserError: The first way cannot run; for others, the row has the reason.
    """
    rows = {kind: Row() for kind in kinds}
    subjects: dict[str, Subject] = {}
    results: dict[str, list[Result]] = {}
    for kind, prepare in kinds.items():
        log(f"{kind}: warming up")
        try:
            if prepare is not None:
                prepare()
            with muted("torch.utils.cpp_extension", "torch._dynamo"):
                subject = build(kind, setup)
                results[kind] = subject.results()
                subject.run_all()
            log(f"{kind}: memory")
            rows[kind].peak_memory = peak_memory(kind, setup)
        except Exception as error:  # compilers and runtimes may raise anything
            lines = str(error).strip().splitlines()
            reason = lines[0].strip() if lines else type(error).__name__
            if not subjects:
                height, width = setup.size
                raise UserError(
                    f"the model does not run on images of {height} x {width} (height x width) in "
                    f"batches of {setup.batch_size}: {reason}"
                ) from error
            rows[kind].failed = reason
            continue
        subjects[kind] = subject
    log("images per second")
    rates = images_per_second(subjects, setup.batch_size, seconds)
    without_limits = Metadata(setup.task, Preprocessing())
    limits = next((s.metadata for s in subjects.values() if s.metadata), without_limits)
    tolerance = TOLERANCES["fp32"]
    first = next(iter(kinds))
    for kind, rounds in rates.items():
        row = rows[kind]
        counts = [len(result) for result in results[kind] if isinstance(result, Detections)]
        row.rounds, row.boxes = rounds, statistics.mean(counts) if counts else None
        if kind == first:
            continue
        row.ratio = row.images_per_s / rows[first].images_per_s
        differences = Differences()
        for one, other in zip(results[kind], results[first], strict=True):
            compare_results(one, other, limits, tolerance.score, differences)
        row.differences, row.beyond = differences.largest, differences.beyond(tolerance)
    return rows


def images_per_second(
    subjects: Mapping[str, Subject],
    batch_size: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Images per second of each subject in each of ``ROUNDS`` rounds.

    Subjects take turns, so that other load on the machine affects all of them alike. Every round
    runs all batches of the warmed-up subjects at least once.
    """
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            # Not timed, since threads of the previous subject may still be spinning.
            subject.run(0)
            images, start = 0, clock()
            while not images or clock() - start < seconds / ROUNDS:
                subject.run_all()
                images += subject.batches * batch_size
            rates[name].append(images / (clock() - start))
    return rates


def table(rows: Mapping[str, Row]) -> str:
    """A line for each row, then failures and differences."""
    ran = {kind: row for kind, row in rows.items() if not row.failed}
    cells = [_HEADS, *(_cells(kind, row) for kind, row in ran.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for kind, *values in cells:
        padded = (f"  {value:>{width}}" for value, width in zip(values, widths[1:], strict=True))
        lines.append(f"{kind:<{widths[0]}}{''.join(padded)}".rstrip())
    lines += [f"{kind}: {row.failed}" for kind, row in rows.items() if row.failed]
    (_, first), *others = ran.items()
    if first.boxes is not None:
        lines.append(f"{first.boxes:.0f} boxes per image")
    for kind, row in others:
        values = ", ".join(f"{name} {value:.2g}" for name, value in row.differences.items())
        lines.append(f"{kind}, largest differences: {values or 'nothing to compare'}")
        lines += [f"{kind} DIFFERS: {what}" for what in row.beyond]
    return "\n".join(lines)


def _cells(kind: str, row: Row) -> tuple[str, ...]:
    rates = (row.images_per_s, min(row.rounds), max(row.rounds))
    memory = "" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f} MiB"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (kind, *(f"{rate:.4g}" for rate in rates), ratio, memory)
