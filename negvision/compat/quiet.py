"""Import OpenMMLab without the lines it prints about optional packages."""

import contextlib
import io
import sys
from collections.abc import Iterator

# mmdet and mmseg print these while their datasets are imported, once for the data sets and once
# for the transforms, through mmengine's print_log without a logger: there the level (DEBUG) is
# ignored.
KNOWN_LINES = ("Could not import OneDL. Skipping OneDL datasets.", "Could not import OneDL")


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop the lines of :data:`KNOWN_LINES` from what the block prints.

    All other output reaches ``sys.stdout`` when the block ends, also after an exception. Warnings
    and ``sys.stderr`` are not touched.

    Example:
        >>> with quiet_imports():
        ...     import mmdet.datasets
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stdout(captured):
            yield
    finally:
        for line in captured.getvalue().splitlines(keepends=True):
            if line.strip() not in KNOWN_LINES:
                sys.stdout.write(line)
