"""What ranks do whose work dir belongs to another run."""

from pathlib import Path

import pytest

from negvision.engine.checkpoints.work_dir import claimed
from negvision.errors import CheckpointError


def check_refusal(folder: Path) -> None:
    """All ranks raise; none waits for another. The ranks of one run share its folder."""
    with pytest.raises(CheckpointError, match=r"iter_7\.pth"), claimed([folder], None):
        pass
    with claimed([folder], ""):
        pass
