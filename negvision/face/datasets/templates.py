"""The template protocol of IJB-B and IJB-C."""

from typing import Any

import numpy as np

from negvision.data.formats.text_files import numbered_lines, parse_count
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceProtocolDataset, ListedImages
from negvision.face.datasets.tables import parse_numbers, read_integers
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceTemplateDataset(FaceProtocolDataset):
    """All images of a template protocol; ``metainfo`` says which ones form a template.

    ``metainfo`` has ``template_ids`` and ``media_ids``, int64 (N,), one entry per sample;
    ``template_pairs``, int64 (P, 2), of template ids, and ``template_same``, bool (P,); if the
    list has them, also ``detection_scores``, float32 (N,). Samples have ``landmarks`` for
    :class:`negvision.face.datasets.transforms.AlignFace`.

    Args:
        ann_file: The images with their landmarks: ``name x1 y1 ... x5 y5`` and optionally the
            score of the face detector (``ijbc_name_5pts_score.txt``).
        template_file: ``name template medium`` for the same images in the same order
            (``ijbc_face_tid_mid.txt``).
        pairs_file: ``template template same`` with 1 or 0 (``ijbc_template_pair_label.txt``).
        on_bad_sample: "error" raises for malformed lines, missing images and pairs of templates
            without images. "skip" drops them and logs their number.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Example::

        dataset=dict(
            type="negvision.FaceTemplateDataset", data_root="data/IJBC/",
            ann_file="meta/ijbc_name_5pts_score.txt",
            template_file="meta/ijbc_face_tid_mid.txt",
            pairs_file="meta/ijbc_template_pair_label.txt",
            data_prefix=dict(img="loose_crop/"), pipeline=[...])
    """

    _file_arguments = ("template_file", "pairs_file")

    def __init__(self, *args, template_file: str, pairs_file: str, **kwargs) -> None:
        self.template_file = template_file
        self.pairs_file = pairs_file
        super().__init__(*args, **kwargs)

    def load_columns(self) -> dict[str, Any]:
        self._require_files()
        problems = Problems()
        images = ListedImages(self, problems)
        found = self._read_images(images, problems)
        templates = np.array([image[1] for image in found], dtype=np.int64)
        pairs = self._read_pairs(templates, problems)
        self._settle_samples(
            self.ann_file, problems, "the images and pairs", len(pairs), listed="pair"
        )
        self._set_protocol(
            template_ids=templates,
            media_ids=np.array([image[2] for image in found], dtype=np.int64),
            template_pairs=pairs[:, :2],
            template_same=pairs[:, 2] == 1,
        )
        scores = np.array([image[4] for image in found], dtype=np.float32)
        if not np.isnan(scores).any():
            self._set_protocol(detection_scores=scores)
        return {
            "label": np.full(len(found), -1, dtype=np.int64),
            "landmarks": np.stack([image[3] for image in found]),
            **images.columns(image[0] for image in found),
        }

    def _read_images(self, images: ListedImages, problems: Problems) -> list[tuple]:
        """(name, template, medium, landmarks, score or NaN) of each usable image."""
        lists = [list(numbered_lines(path)) for path in (self.ann_file, self.template_file)]
        if len(lists[0]) != len(lists[1]):
            raise DatasetError(
                f"{self.ann_file} lists {len(lists[0]):,} images and {self.template_file} "
                f"{len(lists[1]):,}; both must list the same images in the same order."
            )
        found = []
        for (place, line), (template_place, template_line) in zip(*lists, strict=True):
            name, *numbers = line.split()
            ids = template_line.split()
            parsed = [parse_count(text) for text in ids[1:]]
            values = parse_numbers(numbers)
            if values is None or len(values) not in (10, 11):
                kind = "line that is not a name, ten numbers and an optional score"
                problems.add(kind, place, line)
            elif len(ids) != 3 or None in parsed:
                problems.add("line that is not 'name template medium'", template_place, ids)
            elif ids[0] != name:
                raise DatasetError(
                    f"{place} names {name!r} and {template_place} {ids[0]!r}; both files must "
                    "list the same images in the same order."
                )
            elif problem := images.problem(name):
                problems.add(problem[0], place, problem[1])
            else:
                score = values[10] if len(values) == 11 else np.nan
                found.append((name, *parsed, values[:10].reshape(5, 2), score))
        return found

    def _read_pairs(self, templates: np.ndarray, problems: Problems) -> np.ndarray:
        """Shape (P, 3), int64: the usable lines of the pairs file."""
        pairs, lines = read_integers(self.pairs_file, 3, problems)
        known = np.isin(pairs[:, :2], templates).all(axis=1)
        valid = pairs[:, 2] <= 1
        for kind, rows in (
            ("pair whose third number is not 0 or 1", ~valid),
            ("pair of a template without images", valid & ~known),
        ):
            for row in np.flatnonzero(rows):
                problems.add(kind, f"{self.pairs_file}:{lines[row]}", pairs[row].tolist())
        return pairs[known & valid]
