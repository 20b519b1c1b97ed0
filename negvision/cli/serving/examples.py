"""The images to click on a page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.data.images.integrity import require_size
from negvision.errors import UserError

if TYPE_CHECKING:
    from negvision.inference.inferencer import Inferencer

_MOST = 12
# Photographs that come with packages; those that are not installed are left out.
_PHOTOS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def find_examples(
    paths: Sequence[str], model: Inferencer, folder: Path, max_pixels: int
) -> list[Path]:
    """Copies of the images that a user names, or else of photographs of installed packages.

    A model whose classes are digits gets digits on photographs; faces get none.

    Args:
        paths: Images, folders of images, or patterns.
        model: The model of the page.
        folder: Where they are copied to: the one whose files Gradio shows.
        max_pixels: Largest height x width; larger photographs of packages are left out.

    Raises:
        UserError: A path has no image, or a video, or an image that is damaged or too large.
    """
    folder /= "examples"
    folder.mkdir()
    if paths:
        return _copied(_named(paths, max_pixels), folder)
    if model.task == "face":
        return []
    if model.classes and all(name.isdecimal() and len(name) == 1 for name in model.classes):
        # Loads scikit-learn.
        from negvision.export.sample_images import write_samples

        # The first one is empty.
        return write_samples(folder, 4, None)[1:]
    from negvision.toy.photos import find_package_file

    found = []
    for package, file in _PHOTOS:
        try:
            path = find_package_file(package, file)
        except FileNotFoundError:
            continue
        if require_size(path.read_bytes(), str(path)).pixels <= max_pixels:
            found.append(path)
    return _copied(found, folder)


def _named(paths: Sequence[str], max_pixels: int) -> list[Path]:
    from negvision.inference.sources import find_sources

    places = find_sources(paths).places
    for place in places:
        if not isinstance(place, str):
            raise UserError(f"--examples {place.name}: give images, not videos")
    found = [Path(place) for place in places if isinstance(place, str)][:_MOST]
    for path in found:
        pixels = require_size(path.read_bytes(), str(path)).pixels
        if pixels > max_pixels:
            raise UserError(f"--examples {path}: {pixels:,} pixels; --max-pixels is {max_pixels:,}")
    return found


def _copied(files: Sequence[Path], folder: Path) -> list[Path]:
    copies = []
    for number, file in enumerate(files):
        (folder / str(number)).mkdir()
        copies.append(Path(shutil.copy(file, folder / str(number) / file.name)))
    return copies
