"""Mirror images without boxes."""

import bisect
import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from mmcv.transforms import RandomFlip as MMCVRandomFlip

from negvision.errors import ConfigError
from negvision.registry import TRANSFORMS

_REVERSED = slice(None, None, -1)
_MIRRORED = {
    "horizontal": (slice(None), _REVERSED),
    "vertical": _REVERSED,
    "diagonal": (_REVERSED, _REVERSED),
}


def held_on_demand(draw: Callable) -> Callable:
    """Decorate a method that draws: within mmcv's ``cache_random_params`` it draws once.

    mmcv's ``cache_randomness`` copies an object per call, which for small images takes longer than
    the draw and the flip together. The class lists the method in ``_methods_with_randomness``.

    Example:
        >>> import itertools
        >>> from mmcv.transforms import BaseTransform
        >>> from mmcv.transforms.utils import cache_random_params
        >>> class Number(BaseTransform):
        ...     _methods_with_randomness = ["draw"]
        ...     numbers = itertools.count()
        ...     @held_on_demand
        ...     def draw(self):
        ...         return next(self.numbers)
        ...     def transform(self, results):
        ...         return self.draw()
        >>> number = Number()
        >>> number({}), number({})
        (0, 1)
        >>> with cache_random_params([number]):
        ...     number({}), number({})
        (2, 2)
    """
    name = str(getattr(draw, "__name__", draw))

    @functools.wraps(draw)
    def drawn_or_held(self, *args):
        # mmcv sets and deletes both attributes.
        if not getattr(self, "_cache_enabled", False):
            return draw(self, *args)
        held = self.__dict__.setdefault("_cache", {})
        if name not in held:
            held[name] = draw(self, *args)
        return held[name]

    return drawn_or_held


@TRANSFORMS.register_module()
class RandomFlip(MMCVRandomFlip):
    """mmcv's ``RandomFlip`` with a faster draw, for faces, label images and classification.

    Arguments, output and random numbers are mmcv's: one uniform number per image from NumPy's
    global generator. For small images ``numpy.random.choice``, which mmcv calls, takes a tenth of
    the pipeline's time.

    Raises:
        ConfigError: ``results`` has boxes; detection uses mmdet's ``RandomFlip``.

    Example:
        >>> image = np.arange(2, dtype=np.uint8).reshape(1, 2)
        >>> RandomFlip(prob=1.0)({"img": image})["img"].tolist()
        [[1, 0]]
    """

    _methods_with_randomness: ClassVar[list[str]] = ["_choose_direction"]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        directions = [self.direction] if isinstance(self.direction, str) else self.direction
        if isinstance(self.prob, list):
            chances = [*self.prob, 1 - sum(self.prob)]
        else:
            chances = [self.prob / len(directions)] * len(directions) + [1.0 - self.prob]
        # Summed and scaled like numpy.random.choice, so that a number means the same direction.
        limits = np.cumsum(chances)
        self._limits = (limits / limits[-1]).tolist()
        self._choices = [*directions, None]

    @held_on_demand
    def _choose_direction(self) -> str | None:
        # MMEngine seeds NumPy's global generator.
        drawn = np.random.random_sample()  # noqa: NPY002
        return self._choices[bisect.bisect_right(self._limits, drawn)]

    def _flip(self, results: dict) -> None:
        if results.get("gt_bboxes") is not None:
            raise ConfigError(
                "negvision.RandomFlip does not flip boxes; in a detection pipeline use mmdet's "
                '"RandomFlip"'
            )
        if self.swap_seg_labels is not None or results.get("gt_keypoints") is not None:
            super()._flip(results)
            return
        view = _MIRRORED[results["flip_direction"]]
        results["img"] = results["img"][view]
        if results.get("gt_seg_map") is not None:
            results["gt_seg_map"] = results["gt_seg_map"][view]
            results["swap_seg_labels"] = None
