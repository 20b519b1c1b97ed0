"""Draws of transforms that hold while several images are treated alike."""

import functools
from collections.abc import Callable


def held_on_demand(draw: Callable) -> Callable:
    """Decorate a method that draws: within mmcv's ``cache_random_params`` it draws once.

    mmcv's ``cache_randomness`` copies an object at each call for that, which for small images takes
    longer than the draw and the flip that follows. The class lists the method's name in
    ``_methods_with_randomness``.

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
    name = draw.__name__

    @functools.wraps(draw)
    def drawn_or_held(self, *args):
        # Both attributes are mmcv's, which sets and deletes them.
        if not getattr(self, "_cache_enabled", False):
            return draw(self, *args)
        held = self.__dict__.setdefault("_cache", {})
        if name not in held:
            held[name] = draw(self, *args)
        return held[name]

    return drawn_or_held
