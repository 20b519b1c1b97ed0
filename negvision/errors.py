"""Errors that a user can fix, and the helpers that word their messages."""

import difflib
import logging
import mmap
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something in the user's input is wrong; the message says what, where, and what to do.

    Commands print it without a traceback and exit with status 2. Other packages need not derive
    from it: any exception whose ``is_user_error`` is true is treated the same way.
    """

    is_user_error = True
    # Whether all ranks of a distributed run raise it at the same place, so that they can still
    # save the run's state together.
    on_all_ranks = False


class ConfigError(UserError):
    """A config file, or an option that changes it, does not fit the components it names."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or contains objects that are not on the allow-list."""


class ExportError(UserError):
    """A model cannot be exported, or an exported file cannot be used."""


class MissingDataError(UserError):
    """Annotation files or image folders that the config needs do not exist."""


class DatasetError(UserError, ValueError):
    """A dataset or one of its files is unusable; the message says where and what to do.

    It takes one string, so it survives pickling and PyTorch's re-raising from a DataLoader worker.
    PyTorch then constructs the error from a text with the worker's full traceback, of which only
    the original message is kept.

    Args:
        message: What is shown.
        kind: The problem in a few words without names and numbers, such as "truncated image", for
            counting. PyTorch's re-raising loses it.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        own = f"{type(self).__module__}.{type(self).__qualname__}"
        super().__init__(worker_message(message, own))
        if str(self) != message:
            self.add_note(message)  # tracebacks show notes, messages do not
        self.kind = kind


def worker_message(text: str, name: str) -> str:
    """The message of an exception called ``name`` that PyTorch raises again from a worker process.

    Args:
        text: With the worker's traceback in front; any other text is returned as it is.
        name: Of the class of the exception, as the traceback has it.
    """
    if text.startswith("Caught ") and "\nOriginal Traceback" in text:
        return text.rpartition(f"{name}: ")[2].rstrip("\n")
    return text


class OODDataError(UserError, ValueError):
    """Scores cannot be evaluated: some are not finite, or all samples are of one kind."""


# Long enough for a path or a line of a list.
_SHORT = reprlib.Repr()
_SHORT.maxstring = 160


class Problems:
    """Counts the problems of a data set by kind and keeps the first few of each as examples."""

    examples_per_kind = 5

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # With the number of problems that each stands for.
        self._examples: dict[str, list[tuple[str, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, kind: str, where: str, value: object = None, count: int = 1) -> None:
        """Count a problem of ``kind`` at ``where``; ``value`` is what was found there.

        One example may stand for ``count`` problems.
        """
        self.counts[kind] += count
        examples = self._examples.setdefault(kind, [])
        if len(examples) < self.examples_per_kind:
            text = where if value is None else f"{where}: {_SHORT.repr(value)}"
            examples.append((text, count))

    def merge(self, other: "Problems", source: str = "") -> None:
        """Add the problems of ``other``; examples without ``source`` in them are prefixed with it.

        Example:
            >>> first, second = Problems(), Problems()
            >>> second.add("empty line", "line 3")
            >>> first.merge(second, "train.txt")
            >>> first.counts["empty line"], first.examples("empty line")
            (1, ['train.txt: line 3'])
        """
        for kind, count in other.counts.items():
            self.counts[kind] += count
            examples = self._examples.setdefault(kind, [])
            for text, stands in other._examples[kind][: self.examples_per_kind - len(examples)]:
                named = not source or source in text
                examples.append((text if named else f"{source}: {text}", stands))

    def only(self, kind: str) -> "Problems":
        """Those of ``kind`` alone."""
        chosen = Problems()
        if kind in self.counts:
            chosen.counts[kind] = self.counts[kind]
            chosen._examples[kind] = list(self._examples[kind])
        return chosen

    def examples(self, kind: str) -> list[str]:
        """The first few problems of ``kind``."""
        return [text for text, _ in self._examples.get(kind, ())]

    def summary(self) -> str:
        """All kinds with their counts on one line, most frequent first."""
        return ", ".join(f"{count} x {kind}" for kind, count in self.counts.most_common())

    def report(self) -> str:
        """One paragraph for each kind: count, name, and the first examples."""
        lines = []
        for kind, count in self.counts.most_common():
            lines.append(f"  {count} x {kind}")
            lines += [f"      {example}" for example in self.examples(kind)]
            if more := count - sum(stands for _, stands in self._examples[kind]):
                lines.append(f"      ... and {more} more")
        return "\n".join(lines)


class WarnOnce:
    """Logs the first of its warnings, in this process and those that it forks, such as workers.

    Without a runner, whose log it goes to, the warning is printed on stderr.

    Example:
        >>> warn = WarnOnce()
        >>> warn("a.png: dark"), warn("b.png: dark")
        (None, None)
    """

    def __init__(self) -> None:
        # Anonymous memory is shared with forks.
        self._said = mmap.mmap(-1, 1)

    def __reduce__(self) -> tuple:
        # For workers that are not forks: each says it once.
        return WarnOnce, ()

    def __call__(self, message: str) -> None:
        if not self._said[0]:
            self._said[0] = 1
            logging.getLogger("negvision").warning(message)


def counted(count: int, noun: str, plural: str = "") -> str:
    """``"1 image"``, ``"2 images"``; ``plural`` if it has no -s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def nearest(name: str, choices: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The ``count`` choices most similar to ``name``, best first, ignoring case.

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
    """``"; nearest: 'A', 'B'"`` for choices similar to ``name``, or ``""``."""
    close = nearest(name, choices, count)
    return "; nearest: " + ", ".join(repr(match) for match in close) if close else ""


def listed(names: Sequence[object], most: int) -> str:
    """The first ``most`` names, and their number if there are more.

    Example:
        >>> listed("abcd", 2)
        'a, b, ... (4)'
    """
    rest = f", ... ({len(names):,})" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + rest


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width; the first is aligned left, the others right.

    Example:
        >>> print(text_table(["file", "boxes"], [["a.json", 1234], ["long.json", 3]]))
        file       boxes
        a.json     1,234
        long.json      3
    """
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
        for row in (header, *rows)
    ]
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
    return "\n".join(form.format(*row).rstrip() for row in cells)


def is_user_error(error: BaseException) -> bool:
    """Whether the user can fix ``error``."""
    return getattr(error, "is_user_error", False)
