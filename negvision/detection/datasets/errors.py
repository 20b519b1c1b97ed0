"""The one error that users of the datasets see, and the counting of problems behind it."""

import reprlib
from collections import Counter

_EXAMPLES_PER_KIND = 5


class DatasetError(ValueError):
    """A data set or one of its files is unusable; the message says where and what to do.

    It is built from one string, so that it survives pickling and PyTorch's re-raising from a
    DataLoader worker. There PyTorch builds the error anew from a text that holds the worker's
    whole traceback; of that text the original message is kept.
    """

    is_user_error = True

    def __init__(self, message: str) -> None:
        if message.startswith("Caught ") and "\nOriginal Traceback" in message:
            own = f"{type(self).__module__}.{type(self).__qualname__}: "
            message = message.rpartition(own)[2].rstrip("\n")
        super().__init__(message)


class Problems:
    """Counts problems by kind and keeps the first few of each as examples."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, kind: str, where: str, value: object = None) -> None:
        """Count one problem of ``kind``; ``value`` is what was found there."""
        self.counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES_PER_KIND:
            examples.append(where if value is None else f"{where}: {reprlib.repr(value)}")

    def summary(self) -> str:
        """All kinds with their counts in one line, the most frequent first."""
        return ", ".join(f"{count} x {kind}" for kind, count in self.counts.most_common())

    def report(self) -> str:
        """One paragraph for each kind: count, name, and the first examples."""
        lines = []
        for kind, count in self.counts.most_common():
            lines.append(f"  {count} x {kind}")
            lines += [f"      {example}" for example in self._examples[kind]]
            if count > _EXAMPLES_PER_KIND:
                lines.append(f"      ... and {count - _EXAMPLES_PER_KIND} more")
        return "\n".join(lines)
