"""Fill in the templates of pages."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import jinja2

from negvision import __version__


def rendered(name: str, **context: Any) -> str:
    """A template of ``negvision/report/templates``, with version and date known to it."""
    # Names come from data sets and configs of others, so nothing of them may be markup.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("negvision.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "figure": _figure,
        "range": _range,
        "note": _note,
        "cell": cell,
        "change": change,
    }
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    return environment.get_template(name).render(version=__version__, date=date, **context)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _figure(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.4f}"


def _range(interval: tuple[float, float]) -> str:
    low, high = interval
    # An interval of a few hundred images supports two places; a narrow one would vanish in them.
    places = 2 if high - low >= 0.02 else 3
    return f"{low:.{places}f}\N{EN DASH}{high:.{places}f}"


def _note(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value


def cell(value: float | int | str | None) -> str:
    """A value of a table: counts whole, others with three places, a dash for what is not there.

    Example:
        >>> cell(1234), cell(0.61235), cell("16-32"), cell(float("nan")) == cell(None)
        ('1,234', '0.612', '16-32', True)
    """
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def change(value: float | int) -> str:
    """A difference with its sign, a minus of the width of a plus.

    Example:
        >>> change(1300), change(0.0125)
        ('+1,300', '+0.013')
    """
    text = cell(abs(value))
    if not text.strip("0."):
        return f"\N{PLUS-MINUS SIGN}{text}"
    return f"+{text}" if value > 0 else f"\N{MINUS SIGN}{text}"
