"""Rendering of the page templates."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import jinja2

from negvision import __version__

_DASH = "\N{EN DASH}"


def rendered(name: str, **context: Any) -> str:
    """A template of ``negvision/report/templates``, filled in with ``context``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("negvision.report"),
        # Names come from files of others and must not become markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,.0f}".format,
        "metric": lambda value: _DASH if value is None else f"{value:.4f}",
        "range": _range,
        "cell": cell,
        "change": change,
    }
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    return environment.get_template(name).render(version=__version__, date=date, **context)


def _range(interval: tuple[float, float]) -> str:
    low, high = interval
    # A few hundred images support two decimals; a narrow interval would vanish in them.
    places = 2 if high - low >= 0.02 else 3
    return f"{low:.{places}f}{_DASH}{high:.{places}f}"


def cell(value: float | int | str | None) -> str:
    """A table value: integers as counts, floats with three decimals, a dash if missing.

    Example:
        >>> cell(1234), cell(0.61235), cell("16-32"), cell(float("nan")) == cell(None)
        ('1,234', '0.612', '16-32', True)
    """
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return _DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def change(value: float | int) -> str:
    """A difference with its sign, using a minus as wide as a plus.

    Example:
        >>> change(1300), change(0.0125), change(float("nan")) == cell(None)
        ('+1,300', '+0.013', True)
    """
    if math.isnan(value):
        return _DASH
    text = cell(abs(value))
    if not text.strip("0."):
        return f"\N{PLUS-MINUS SIGN}{text}"
    return f"+{text}" if value > 0 else f"\N{MINUS SIGN}{text}"
