"""Write what a model says about many images."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from negvision.inference.inferencer import Inferencer
from negvision.inference.output import OutputFolder
from negvision.inference.pictures import Pictures
from negvision.inference.results import BoxResults, Entry, FaceResults, MapResults, Results
from negvision.inference.runtime.results import Result
from negvision.inference.sources import Frame


class Writer:
    """Takes results one by one; after an error there is no file that is not whole.

    ``images.json`` is a COCO annotation file of the images and classes: the ``id`` of an image is
    its place, counted from 0, as that of a class is its label. What else there is say
    :class:`~negvision.inference.pictures.Pictures` and :mod:`negvision.inference.results`. Faces
    have neither pictures nor ``images.json``.

    Args:
        folder: To write to.
        model: The one that predicts.
        pictures: Whether to draw.

    Raises:
        UserError: Something cannot be written.

    Example:
        >>> with Writer(OutputFolder("out"), model) as writer:
        ...     for frame in find_sources(["images/"]).read(model.decode):
        ...         writer.add(frame, model.predict([frame.image])[0])
        ...     written = writer.finish()
    """

    def __init__(self, folder: OutputFolder, model: Inferencer, pictures: bool = True) -> None:
        self.folder = folder
        self.classes = model.classes
        self.images: list[Entry] = []
        self.results = _results_of(model, folder)
        self.of_faces = model.task == "face"
        self._pictures = Pictures(folder, model) if pictures and not self.of_faces else None
        self._names: set[str] = set()
        self._name = ""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error) -> None:
        if error[0] is not None:
            self.results.drop()
            if self._pictures is not None:
                self._pictures.drop()

    def add(self, frame: Frame, result: Result) -> None:
        """Write what belongs to one image."""
        height, width = frame.image.shape[:2]
        entry = {"id": len(self.images), "file_name": frame.name, "width": width, "height": height}
        if not frame.number:
            self._name = self._free_name(frame.name)
        name = self._name
        if frame.number is not None:
            entry["frame"] = frame.number
            name += f"_{frame.number:06d}"
        self.results.add(result, entry, name)
        if self._pictures is not None:
            entry["picture"] = self._pictures.add(frame, result, self._name)
        self.images.append(entry)

    def finish(self) -> list[Path]:
        """Write what sums up all images; the files and folders that there are."""
        written = self.results.finish()
        if self._pictures is not None:
            self._pictures.finish()
        if not self.of_faces:
            categories = [{"id": place, "name": name} for place, name in enumerate(self.classes)]
            # Without annotations pycocotools takes no results.
            index = {"images": self.images, "categories": categories, "annotations": []}
            written.append(self.folder.write("images.json", json.dumps(index).encode()))
        parts = ("labels", "ood_scores", "picture")
        files = {entry[part] for entry in self.images for part in parts if part in entry}
        folders = sorted({PurePosixPath(file).parts[0] for file in files})
        return [*written, *(self.folder.path / name for name in folders)]

    def _free_name(self, source: str) -> str:
        """A name of its own for each file, also where two folders have one of the same name."""
        stem = Path(urlsplit(source).path if "://" in source else source).stem
        stem = stem.replace("webcam ", "webcam_") or "image"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


def _results_of(model: Inferencer, folder: OutputFolder) -> Results:
    if model.task == "detection":
        return BoxResults(folder)
    if model.task == "segmentation":
        return MapResults(folder, len(model.classes))
    return FaceResults(folder)
