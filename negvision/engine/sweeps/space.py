"""The settings that a sweep tries: ranges and lists of values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from negvision.engine.config.reading import split_at_commas
from negvision.errors import ConfigError

# Of a range without :log or :linear that covers so many times its lower end, the logarithm counts.
_DECADE = 10
_DIGITS = 4


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; whole ones if both are."""

    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        """Whether only integers count."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> list[str]:
        """The texts of both ends."""
        return [self.text(0.0), self.text(1.0)]

    @property
    def size(self) -> float:
        """Number of values; infinite unless they are whole."""
        return self.high - self.low + 1 if self.whole else math.inf

    def text(self, share: float) -> str:
        """The value at a share in [0, 1] of the range."""
        if self.whole and not self.log:
            found = min(self.low + math.floor(share * (self.high - self.low + 1)), self.high)
        elif self.log:
            found = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            found = self.low + share * (self.high - self.low)
        return self.written(found)

    def written(self, value: float) -> str:
        """The text of a value: of four digits, and within the range."""
        rounded = round(value) if self.whole else float(f"{value:.{_DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))

    def values(self) -> list[str]:
        """All of them, if they are whole."""
        return [str(value) for value in range(int(self.low), int(self.high) + 1)]

    def distribution(self, optuna: Any) -> Any:
        """Optuna's."""
        kinds = optuna.distributions
        kind = kinds.IntDistribution if self.whole else kinds.FloatDistribution
        return kind(self.low, self.high, log=self.log)

    def stored(self, text: str) -> Any:
        """What Optuna keeps for a text."""
        return int(text) if self.whole else float(text)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + ", logarithmic" * self.log


@dataclass(frozen=True)
class Values:
    """A list of values, as they are written."""

    texts: tuple[str, ...]

    @property
    def ends(self) -> list[str]:
        """All of them."""
        return list(self.texts)

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.texts)

    def text(self, share: float) -> str:
        """The value at a share in [0, 1] of the list."""
        return self.texts[min(int(share * len(self.texts)), len(self.texts) - 1)]

    def written(self, value: str) -> str:
        """The value itself."""
        return value

    def values(self) -> list[str]:
        """All of them."""
        return list(self.texts)

    def distribution(self, optuna: Any) -> Any:
        """Optuna's."""
        return optuna.distributions.CategoricalDistribution(self.texts)

    def stored(self, text: str) -> str:
        """What Optuna keeps for a text."""
        return text

    def __str__(self) -> str:
        return ", ".join(self.texts)


Space = Mapping[str, Range | Values]
Setting = dict[str, str]


def parse_space(texts: Sequence[str]) -> dict[str, Range | Values]:
    """Key -> range or list, of texts ``key=1e-4..1e-2,key=[a,b]``.

    Args:
        texts: ``A..B`` is a range, of the logarithm if it covers a factor of 10 or ends with
            ``:log``, and not if it ends with ``:linear``; integers if A and B are. ``[a,b]`` is a
            list.

    Raises:
        ConfigError: A text cannot be read, a range or list has fewer than two values, a key is
            named twice, or there is none.

    Example:
        >>> space = parse_space(["lr=1e-4..1e-2,batch=[4,8]"])
        >>> {key: str(one) for key, one in space.items()}
        {'lr': '0.0001 to 0.01, logarithmic', 'batch': '4, 8'}
    """
    space: dict[str, Range | Values] = {}
    for text in texts:
        try:
            parts = [part.strip() for part in split_at_commas(text)]
        except ValueError as error:
            raise ConfigError(f"--space {text}: {error}") from None
        for part in filter(None, parts):
            key, separator, value = part.partition("=")
            if not separator or not key:
                raise ConfigError(f"--space {part}: write KEY=LOW..HIGH or KEY=[A,B,...]")
            if key in space:
                raise ConfigError(f"--space {part}: {key} is named twice")
            listed = value[:1] + value[-1:] == "[]"
            space[key] = _values(part, value[1:-1]) if listed else _range(part, value)
    if not space:
        raise ConfigError("--space is empty: name settings to try, such as lr=1e-4..1e-2")
    return space


def _values(part: str, inner: str) -> Values:
    texts = tuple(text.strip() for text in split_at_commas(inner) if text.strip())
    if len(texts) < 2:
        raise ConfigError(f"--space {part}: a list needs two values, such as [4,8]")
    if len(set(texts)) < len(texts):
        raise ConfigError(f"--space {part}: a value is listed twice")
    return Values(texts)


def _range(part: str, value: str) -> Range:
    value, _, scale = value.partition(":")
    ends = value.split("..")
    try:
        low, high = (_number(text) for text in ends)
    except ValueError:
        raise ConfigError(
            f"--space {part}: write a range of numbers, LOW..HIGH, or a list, [A,B,...]"
        ) from None
    if scale not in ("", "log", "linear"):
        raise ConfigError(f"--space {part}: {scale!r} is neither log nor linear")
    if not low < high or not math.isfinite(high - low):
        raise ConfigError(f"--space {part}: a range goes from a lower to a higher number")
    if scale == "log" and low <= 0:
        raise ConfigError(f"--space {part}: a logarithmic range starts above 0")
    return Range(low, high, scale == "log" or (not scale and low > 0 and high / low >= _DECADE))


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def spread_settings(space: Space, count: int, seed: int) -> list[Setting]:
    """``count`` settings that cover each range evenly, or all there are if they are fewer.

    A Latin hypercube: each of ``count`` equal parts of a range is tried once.

    Source: McKay, Beckman and Conover, "A Comparison of Three Methods for Selecting Values of Input
    Variables in the Analysis of Output from a Computer Code", Technometrics 21, 1979.

    Example:
        >>> spread_settings({"batch": Values(("4", "8"))}, 9, 0)
        [{'batch': '4'}, {'batch': '8'}]
    """
    if space_size(space) <= count:
        return [
            dict(zip(space, texts, strict=True))
            for texts in itertools.product(*(one.values() for one in space.values()))
        ]
    from scipy.stats import qmc  # loads slowly

    points = qmc.LatinHypercube(len(space), rng=np.random.default_rng(seed)).random(count)
    pairs = [zip(space.items(), point.tolist(), strict=True) for point in points]
    return [{key: one.text(share) for (key, one), share in row} for row in pairs]


def space_size(space: Space) -> float:
    """The number of settings; infinite with a range of numbers that are not whole."""
    return math.prod(one.size for one in space.values())
