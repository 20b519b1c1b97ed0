"""The names that a metric announces before it evaluates."""

from fnmatch import fnmatchcase

from negvision.engine.metric_names_hook import name_patterns


def named(metric, values: dict) -> dict:
    """``values``, which ``metric`` returned, after a check that it announced their names."""
    patterns = name_patterns(metric)
    assert "*" not in patterns
    unknown = [name for name in values if not any(fnmatchcase(name, p) for p in patterns)]
    assert not unknown, f"{type(metric).__name__} does not announce {unknown}"
    return values
