"""Drawn images as JPEG, drawn videos as MP4."""

from __future__ import annotations

import cv2

from negvision.inference.drawing import draw
from negvision.inference.inferencer import Inferencer
from negvision.inference.output import OutputFolder, Partial
from negvision.inference.runtime.results import Result
from negvision.inference.sources import Frame
from negvision.inference.videos import VideoWriter

# The default of 95 is twice as large, and less smears thin lines.
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)


class Pictures:
    """``pictures/NAME.jpg`` of each image, ``pictures/NAME.mp4`` of each video.

    Args:
        folder: To write to.
        model: The one that predicts.
    """

    def __init__(self, folder: OutputFolder, model: Inferencer) -> None:
        self._folder = folder
        self._model = model
        self._video: VideoWriter | None = None
        self._partial: Partial | None = None

    def add(self, frame: Frame, result: Result, name: str) -> str:
        """Draw an image; its file in the folder. ``name`` is that of the image or the video."""
        model = self._model
        limit = {} if model.score_threshold is None else {"score_threshold": model.score_threshold}
        picture = draw(
            frame.image, result, model.classes, ood_threshold=model.ood_threshold, **limit
        )
        if frame.number is None:
            path = f"pictures/{name}.jpg"
            self._folder.write(path, cv2.imencode(".jpg", picture, _QUALITY)[1].tobytes())
            return path
        path = f"pictures/{name}.mp4"
        if frame.number == 0:
            self.finish()
            self._partial = self._folder.begin(path)
            self._video = VideoWriter(self._partial.path, frame.rate)
        self._video.add(picture)
        return path

    def finish(self) -> None:
        """Give the last video its name."""
        if self._video is not None:
            self._video.close()
            self._partial.keep()
        self._video = None

    def drop(self) -> None:
        """Remove a video that is not whole."""
        if self._video is not None:
            self._video.close()
            self._partial.drop()
