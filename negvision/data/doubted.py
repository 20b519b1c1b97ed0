"""Data sets that do not believe what an audit suspects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from negvision.data.suspects import Suspect, Suspects
from negvision.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.dataset import BaseDataset
else:
    BaseDataset = object


class DoubtedMixin(BaseDataset):
    """Adds ``suspects`` to a data set derived from MMEngine's ``BaseDataset``.

    Put it before the data set in the list of bases. Its ``load_data_list`` calls :meth:`_audit` and
    gives doubted records a ``suspect``, the probability that they are wrong; :meth:`_doubt` is then
    the first step of the pipeline.

    Args:
        suspects: File of ``negvision audit`` about ``ann_file``.

    Raises:
        ConfigError: ``suspects`` with ``test_mode``.
    """

    def __init__(self, *args, suspects: str | None = None, **kwargs) -> None:
        self.suspects = suspects
        super().__init__(*args, **kwargs)
        if suspects is not None:
            if self.test_mode:
                raise ConfigError(
                    f"{self.ann_file}: suspects={suspects!r} with test_mode=True. Suspects change "
                    "what is trained; an evaluation uses the annotations as they are"
                )
            self.pipeline.transforms.insert(0, self._doubt)

    @staticmethod
    def _doubt(results: dict) -> dict | None:
        """Draw which suspects of a record are wrong this time; None draws another record."""
        raise NotImplementedError

    def _audit(self, kinds: Collection[str]) -> list[Suspect]:
        """The suspects of some kinds; they are logged.

        Raises:
            DatasetError: They are of other annotations or classes.
        """
        if self.suspects is None:
            return []
        found = Suspects.load(self.suspects)
        found.check(self.ann_file, self._metainfo.get("classes"))
        counts = Counter(one.kind for one in found.found)
        used = ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind])
        others = sum(counts[kind] for kind in counts if kind not in kinds)
        line = f"{self.suspects}: suspects, each ignored as often as it is likely to be wrong: "
        line += used or "none"
        line += f"; {others:,} of other kinds have no effect here" * bool(others)
        print_log(line, logger="current")
        return [one for one in found.found if one.kind in kinds]


def probability_of(one: Suspect) -> float:
    """That it is wrong; a half where the audit gives none."""
    return 0.5 if one.probability is None else min(max(one.probability, 0.0), 1.0)
