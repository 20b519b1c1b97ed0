"""What decoders print about an image that they decode all the same."""

from __future__ import annotations

import os
import sys
import tempfile

# Of color profiles, which nothing here makes use of.
_IDLE = ("libpng warning: iCCP",)


class DecoderMessages:
    """Catches what libjpeg, libpng and others write to the standard error of this process.

    They do so for a JPEG whose middle is garbled, which OpenCV returns as if it were whole. To be
    made in a process of which nobody sees the standard error.
    """

    def __init__(self) -> None:
        self._opened = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as self)
        self._file = self._opened.fileno()
        os.dup2(self._file, 2)
        # Warnings of Python are not about the image.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115

    def take(self) -> str:
        """The first line since the last call that tells of damage; "" where there is none."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        if not size:
            return ""
        text = os.pread(self._file, min(size, 4096), 0).decode(errors="replace")
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        lines = (line.strip() for line in text.splitlines())
        return next((line for line in lines if line and not line.startswith(_IDLE)), "")
