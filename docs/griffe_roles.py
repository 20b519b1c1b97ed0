"""Docstrings as the site shows them: Sphinx's roles as code, examples as sessions of Python."""

import re

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?(?:([^`<]*?)\s*<[^`>]*>|([^`]+))`")


def plain(text: str) -> str:
    """The text of a docstring in Markdown.

    Example:
        >>> plain("See :func:`negvision.ops.atss_assign` and :class:`this <a.That>`.")
        'See `negvision.ops.atss_assign` and `this`.'
    """
    text = _ROLE.sub(lambda match: f"`{match[1] or match[2]}`", text)
    return re.sub(r"^(\s*)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Applied to every object that is documented."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)
