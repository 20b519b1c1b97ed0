"""Suspects among labels of whole images, of regions of pixels, and of faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import find_objects

from negvision.audit.sample_numbers import REGIONS, regions_of
from negvision.audit.subject import Findings, chosen, planting
from negvision.data.suspects import Suspect
from negvision.errors import listed

# Faces compared with all centers at once.
_BLOCK = 4096


# A probability of 0 has no logarithm.
_LEAST = 1e-6


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The highest probability of another class minus that of the label, (N,) in [-1, 1].

    With one class there is no other, and the margin is -1 times the probability.

    Example:
        >>> margins(np.array([[0.7, 0.2, 0.1]] * 2), np.array([0, 1])).round(3).tolist()
        [-0.5, 0.5]
    """
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = 0
    return others.max(1, initial=0) - probabilities[rows, labels]


@dataclass(frozen=True)
class LabelSubject:
    """Labels and the probabilities that a model gives instead.

    Attributes:
        kind: "image", or "region" with mean probabilities over the pixels of a region.
        labels: (N,) int64.
        probabilities: (N, C).
        classes: Names.
        images: File names, by place.
        image: (N,) places.
        annotation_ids: (N,) int64.
        boxes: (N, 4) around regions as x, y, width, height in pixels, or None.
    """

    kind: str
    labels: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[str]
    images: Sequence[str]
    image: np.ndarray
    annotation_ids: np.ndarray
    boxes: np.ndarray | None = None

    def findings(self, seed: int = 0) -> Iterator[Findings]:
        """One kind, with labels swapped on purpose.

        The score is one minus the probability of the label. Of few labels, whose scores have to
        speak for themselves, it is the margin: a weak model is sure of no label.
        """
        chances, count = self.probabilities, self.probabilities.shape[1]
        every, planted = np.arange(len(self.labels)), [np.zeros(0)]
        for random in planting(len(self.labels), seed) if count > 1 else ():
            rows = chosen(every, random)
            other = (self.labels[rows] + random.integers(1, count, len(rows))) % count
            planted.append(1 - chances[rows, other])
        own = chances[every, self.labels]
        scores = 1 - own if len(planted) > 1 else margins(chances, self.labels)
        losses = -np.log(np.maximum(own, _LEAST))
        yield Findings(self.kind, scores, self._suspect, np.concatenate(planted), losses=losses)

    def _suspect(self, row: int) -> Suspect:
        label, chances = self.labels[row], self.probabilities[row]
        best = int(np.where(np.arange(len(chances)) == label, -1, chances).argmax())
        reason = f"{self.classes[best]} has probability {chances[best]:.2f}, "
        reason += f"{self.classes[label]} {chances[label]:.2f}"
        bbox = None
        if self.boxes is not None:
            x, y, width, height = map(float, self.boxes[row])
            bbox = x, y, width, height
        return Suspect(
            self.kind,
            self.images[self.image[row]],
            annotation=int(self.annotation_ids[row]),
            bbox=bbox,
            label=self.classes[label],
            proposed=self.classes[best],
            reason=reason,
        )


def region_means(numbers: np.ndarray, count: int, probabilities: np.ndarray) -> np.ndarray:
    """Mean probabilities (R, C) of (C, H, W) over each of the regions 1 to R."""
    flat = numbers.reshape(-1)
    sizes = np.bincount(flat, minlength=count + 1)
    sums = [np.bincount(flat, one.reshape(-1), count + 1) for one in probabilities]
    return (np.array(sums) / np.maximum(sizes, 1)).T[1:]


# Of an image: classes (R,), mean probabilities (R, C), ids and boxes (R, 4) of its regions.
Regions = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def region_rows(place: int, labels: np.ndarray, probabilities: np.ndarray) -> Regions:
    """The regions of one image, as the history of a training numbers them.

    Args:
        place: Of the image.
        labels: (H, W), 255 for pixels without a class.
        probabilities: (C, H, W).
    """
    numbers, of = regions_of(labels)
    means = region_means(numbers, len(of), probabilities)
    found = (
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in find_objects(numbers, len(of))
    )
    boxes = [(left, top, right - left, bottom - top) for top, left, bottom, right in found]
    ids = place * REGIONS + np.arange(len(of))
    return np.array(of, np.int64), means, ids, np.array(boxes, np.int64).reshape(-1, 4)


def region_subject(
    rows: Sequence[Regions], classes: Sequence[str], images: Sequence[str]
) -> LabelSubject:
    """The regions of all images, from :func:`region_rows`, in the order of ``images``."""
    shapes = (0,), (0, len(classes)), (0,), (0, 4)
    columns = [
        np.concatenate([np.zeros(shape, np.int64), *(row[place] for row in rows)])
        for place, shape in enumerate(shapes)
    ]
    of, means, ids, boxes = columns
    return LabelSubject("region", of, means, classes, images, ids // REGIONS, ids, boxes)


@dataclass(frozen=True)
class FaceSubject:
    """Faces of people.

    Attributes:
        embeddings: (N, D), of any length.
        labels: (N,) int64 from 0 to K - 1.
        classes: K names.
        images: N file names.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    images: Sequence[str]

    @cached_property
    def _unit(self) -> np.ndarray:
        return _normalized(np.asarray(self.embeddings, np.float32))

    def _compare(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosine to the nearest other center minus to the own, in [-2, 2], and that person.

        The own center is that of the person's other faces. The only face of a person has the
        difference -2.
        """
        sums, counts = _sums(self._unit, labels, len(self.classes))
        centers = _normalized(sums)
        score, other = np.full(len(labels), -2.0), np.full(len(labels), -1)
        for start in range(0, len(labels), _BLOCK):
            part = slice(start, start + _BLOCK)
            of, faces = labels[part], self._unit[part]
            own = (_normalized(sums[of] - faces) * faces).sum(1)
            cosines = np.where(counts > 0, faces @ centers.T, -2)
            cosines[np.arange(len(of)), of] = -2
            other[part] = cosines.argmax(1)
            score[part] = np.where(counts[of] > 1, cosines.max(1) - own, -2)
        return score, other

    @cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each face, as :meth:`_compare` has them."""
        return self._compare(self.labels)

    @cached_property
    def neighbors(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each person with a higher number in the pair: the cosine to that center, and whose."""
        sums, counts = _sums(self._unit, self.labels, len(self.classes))
        centers = _normalized(sums)
        cosine, other = np.full(len(centers), -1.0), np.full(len(centers), -1)
        for row in range(1, len(centers)):
            if counts[row]:
                found = np.where(counts[:row] > 0, centers[:row] @ centers[row], -1)
                other[row] = found.argmax()
                cosine[row] = found[other[row]]
        return cosine, other

    @cached_property
    def groups(self) -> list[Groups]:
        """The faces of each person in two groups."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels, minlength=len(self.classes)))
        return [Groups.of(self._unit, rows) for rows in np.split(order, ends[:-1])]

    def overlap(self, others: np.ndarray, names: Sequence[str], seed: int = 0) -> Findings:
        """People of whom another split has a face.

        Args:
            others: Embeddings (M, D) of the faces of other splits.
            names: Of these, M.
            seed: Of the planted errors: faces of the people themselves, as another split has them.
        """
        sums, counts = _sums(self._unit, self.labels, len(self.classes))
        centers, cosine = _normalized(sums), np.full(len(sums), -1.0)
        nearest = np.zeros(len(sums), np.int64)
        for start in range(0, len(others), _BLOCK):
            found = _normalized(np.asarray(others[start : start + _BLOCK], np.float32)) @ centers.T
            best = found.argmax(0)
            higher = (found.max(0) > cosine) & (counts > 0)
            nearest[higher], cosine[higher] = start + best[higher], found.max(0)[higher]
        rows, planted = np.flatnonzero(counts[self.labels] > 1), [np.zeros(0)]
        for random in planting(len(rows), seed) if len(others) else ():
            part = chosen(rows, random)
            faces = self._unit[part]
            rest = _normalized(sums[self.labels[part]] - faces)
            planted.append((rest * faces).sum(1))

        def suspect(person: int) -> Suspect:
            label, face = self.classes[person], int((self.labels == person).argmax())
            name, found = names[nearest[person]], cosine[person]
            reason = f"the cosine of its mean face to {name} is {found:.2f}"
            return Suspect("overlap", self.images[face], label=label, reason=reason)

        return Findings("overlap", cosine, suspect, np.concatenate(planted))

    def findings(self, seed: int = 0) -> Iterator[Findings]:
        """Faces of other people, people that are one, and people that are two."""
        planted, halves = [np.zeros(0)], [np.zeros(0)]
        people = len(self.classes)
        for random in planting(len(self.labels), seed) if people > 1 else ():
            rows = chosen(np.arange(len(self.labels)), random)
            labels = self.labels.copy()
            labels[rows] = (labels[rows] + random.integers(1, people, len(rows))) % people
            planted.append(self._compare(labels)[0][rows])
            # Two halves of one person are what two people are who are one.
            half = 2 * self.labels + random.integers(0, 2, len(self.labels))
            sums, counts = _sums(self._unit, half, 2 * people)
            both = (counts[::2] > 0) & (counts[1::2] > 0)
            centers = _normalized(sums)
            halves.append((centers[::2] * centers[1::2]).sum(1)[both])
        yield Findings("identity", self.scores[0], self._face, np.concatenate(planted))
        yield Findings("people", self.neighbors[0], self._pair, np.concatenate(halves))
        gaps = np.array([one.gap for one in self.groups])
        yield Findings("mixed", gaps, self._mixed, self._joined(seed))

    def _joined(self, seed: int) -> np.ndarray:
        """The gaps of two people under one name, planted."""
        several, gaps = np.flatnonzero(np.bincount(self.labels) > 1), []
        for random in planting(len(several), seed):
            for one in chosen(several, random).tolist():
                other = random.choice(several[several != one])
                rows = np.flatnonzero((self.labels == one) | (self.labels == other))
                gaps.append(Groups.of(self._unit, rows).gap)
        return np.array(gaps)

    def _face(self, row: int) -> Suspect:
        score, other = (one[row] for one in self.scores)
        name = self.classes[other] if other >= 0 else None
        reason = f"its cosine to {name} is {abs(score):.2f} "
        reason += f"{'higher' if score > 0 else 'lower'} than to the other faces of its person"
        label = self.classes[self.labels[row]]
        return Suspect(
            "identity", self.images[row], annotation=row, label=label, proposed=name, reason=reason
        )

    def _pair(self, person: int) -> Suspect:
        cosine, other = (one[person] for one in self.neighbors)
        face = int((self.labels == person).argmax())
        label, name = self.classes[person], self.classes[other]
        reason = f"the mean faces of {label} and {name} have the cosine {cosine:.2f}"
        return Suspect("people", self.images[face], label=label, proposed=name, reason=reason)

    def _mixed(self, person: int) -> Suspect:
        found, label = self.groups[person], self.classes[person]
        names = [self.images[row] for row in found.smaller]
        reason = (
            f"two groups of faces, whose cosines are {found.gap:.2f} higher inside than between "
            f"them; the smaller one has {listed(names, 3)}"
        )
        return Suspect("mixed", names[0], label=label, reason=reason)


@dataclass(frozen=True)
class Groups:
    """Faces under one name in two groups.

    Attributes:
        gap: Mean cosine of the pairs inside the groups less that of the pairs between them, in
            [-2, 2]; -2 unless each group has two faces.
        smaller: Rows of the faces in the smaller group.
    """

    gap: float
    smaller: Sequence[int]

    @classmethod
    def of(cls, unit: np.ndarray, rows: np.ndarray) -> Groups:
        """Split by 2-means on the sphere, from the sides of the main axis.

        Args:
            unit: (N, D) of length 1.
            rows: (n,) of the person.

        Example:
            >>> faces = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 1], [1, 0]])
            >>> found = Groups.of(faces, np.arange(5))
            >>> found.smaller.tolist(), round(found.gap, 2)
            ([2, 3], 0.7)
        """
        faces = unit[rows]
        if len(faces) < 4:
            return cls(-2.0, ())
        off = faces - faces.mean(0)
        axis = off[np.linalg.norm(off, axis=1).argmax()]
        for _ in range(10):  # power iteration
            [axis] = _normalized((off.T @ (off @ axis))[None])
        second = off @ axis > 0
        for _ in range(20):
            one, other = _normalized(np.stack([faces[~second].sum(0), faces[second].sum(0)]))
            moved = faces @ other > faces @ one
            if (moved == second).all():
                break
            second = moved
        sums = np.stack([faces[~second].sum(0), faces[second].sum(0)])
        counts = np.array([(~second).sum(), second.sum()])
        if counts.min() < 2:
            return cls(-2.0, ())
        # Of all pairs in a group the sum of cosines is the square of the length of its sum.
        inside = ((sums**2).sum() - len(faces)) / (counts * (counts - 1)).sum()
        gap = inside - sums[0] @ sums[1] / counts.prod()
        return cls(float(gap), rows[second if counts[1] <= counts[0] else ~second])


def _normalized(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def _sums(rows: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    sums = np.zeros((count, rows.shape[1]), rows.dtype)
    np.add.at(sums, labels, rows)
    return sums, np.bincount(labels, minlength=count)
