"""Everything that a model costs, measured in one run."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from negvision.benchmark.memory import peak_memory
from negvision.benchmark.rounds import images_per_second
from negvision.benchmark.subjects import Setup, Subject, build
from negvision.engine.quiet import muted
from negvision.errors import UserError
from negvision.export.parity.compare import TOLERANCES, Differences, compare_results
from negvision.inference.runtime import Detections, Metadata
from negvision.inference.runtime.metadata import Preprocessing
from negvision.inference.runtime.results import Result


@dataclass
class Row:
    """What one way to run the model costs.

    Attributes:
        failed: Why there are no figures, or "".
        rounds: Images a second, of each round.
        ratio: Median of the rounds over that of eager PyTorch; None where that did not run.
        peak_memory: Bytes, or None where they cannot be told.
        boxes: Of one picture on average, None of what has none.
        differences: From eager PyTorch, the largest by name; see
            :class:`negvision.export.parity.compare.Differences`.
        beyond: Which differences are beyond what an export in float32 is held to.
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
    kinds: Mapping[str, Callable[[], None]],
    setup: Setup,
    seconds: float,
    tell: Callable[[str], None],
) -> dict[str, Row]:
    """Rows of the ways to run a model.

    Args:
        kinds: Kind, of :data:`negvision.benchmark.subjects.KINDS`, to what has to be done before it
            can be built. All are compared with the first.
        setup: What they share.
        seconds: Of each, over all rounds.
        tell: Is given the name of each step.

    Raises:
        UserError: The first cannot run; others have the reason in their row.
    """
    rows = {kind: Row() for kind in kinds}
    subjects: dict[str, Subject] = {}
    found: dict[str, list[Result]] = {}
    for kind, before in kinds.items():
        tell(f"{kind}: warming up")
        try:
            before()
            with muted("torch.utils.cpp_extension", "torch._dynamo"):
                subject = build(kind, setup)
                found[kind] = subject.results()
                for number in range(subject.batches):
                    subject.run(number)
            tell(f"{kind}: memory")
            rows[kind].peak_memory = peak_memory(kind, setup)
        except Exception as error:  # whatever a compiler or a runtime raises
            reason = _reason(error)
            if not subjects:
                height, width = setup.size
                raise UserError(
                    f"the model does not run on pictures of {height} x {width} (height x width), "
                    f"{setup.batch_size} at once: {reason}"
                ) from error
            rows[kind].failed = reason
            continue
        subjects[kind] = subject
    tell("images a second")
    rates = images_per_second(subjects, setup.batch_size, seconds)
    limits = next((s.metadata for s in subjects.values() if s.metadata), None)
    first = next(iter(kinds))
    for kind, own in rates.items():
        row = rows[kind]
        row.rounds, row.boxes = own, _boxes(found[kind])
        if kind != first:
            row.ratio = row.images_per_s / rows[first].images_per_s
            _compare(row, found[kind], found[first], limits or _without_limits(setup))
    return rows


def _compare(row: Row, own: list[Result], first: list[Result], limits: Metadata) -> None:
    tolerance = TOLERANCES["fp32"]
    differences = Differences()
    for one, other in zip(own, first, strict=True):
        compare_results(one, other, limits, tolerance.score, differences)
    row.differences = differences.largest
    row.beyond = differences.beyond(tolerance)


def _without_limits(setup: Setup) -> Metadata:
    return Metadata(setup.task, Preprocessing())


def _boxes(results: list[Result]) -> float | None:
    counts = [len(result) for result in results if isinstance(result, Detections)]
    return statistics.mean(counts) if counts else None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
