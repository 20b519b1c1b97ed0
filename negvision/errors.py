"""Errors that a user can put right, and how a command shows them."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something in the user's input is wrong; the message says what, and what to do about it.

    Commands print it in one block without a traceback and end with exit status 2. Other packages
    need not derive from it: any exception whose ``is_user_error`` is true is treated so.
    """

    is_user_error = True


class ConfigError(UserError):
    """A config file, or an option that changes it, does not fit the components it names."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or holds objects that are not on the allow-list."""


class MissingDataError(UserError):
    """Annotation files or image folders that the config needs do not exist."""


def nearest(name: str, choices: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The ``count`` choices most like ``name``, best first; letter case does not count.

    Example:
        >>> nearest("ATSSHaed", ["ATSSHead", "RetinaHead", "FCOSHead"], count=1)
        ['ATSSHead']
    """
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    close = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=cutoff)
    return [by_lower[match] for match in close]


def did_you_mean(name: str, choices: Iterable[str], count: int = 3) -> str:
    """``"; nearest: 'A', 'B'"`` for the choices like ``name``, or ``""`` where none is."""
    close = nearest(name, choices, count)
    return "; nearest: " + ", ".join(repr(match) for match in close) if close else ""


def is_user_error(error: BaseException) -> bool:
    """Whether ``error`` is for the user to put right (marked so, or a ``DatasetError``)."""
    return getattr(error, "is_user_error", False) or any(
        cls.__name__ == "DatasetError" for cls in type(error).__mro__
    )


def reports_user_errors(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command's ``main`` print a user error as one block on stderr and return 2."""

    @functools.wraps(command)
    def run(argv: list[str] | None = None) -> int:
        try:
            return command(argv)
        except Exception as error:
            if not is_user_error(error):
                raise
            sys.stdout.flush()
            print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
            return 2

    return run
