"""Which classes stay in training."""

from collections.abc import Sequence

from negvision.errors import DatasetError, did_you_mean


def check_names(names: Sequence[str], classes: Sequence[str], option: str, where: str) -> None:
    """Raise DatasetError where a name is no class; the nearest classes are shown.

    Args:
        names: To be checked.
        classes: All there are.
        option: Where the names come from, such as "--held-out".
        where: The file or folder that has the classes.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        lines = [f"  {name!r}{did_you_mean(name, classes)}" for name in unknown]
        raise DatasetError(
            f"{option}: {len(unknown)} of {len(names)} are no class of {where}:\n"
            + "\n".join(lines)
            + f"\nIts {len(classes)} classes: {', '.join(map(repr, classes[:100]))}."
        )


def remaining_classes(
    classes: Sequence[str], held_out: Sequence[str], where: str
) -> tuple[str, ...]:
    """The classes that are not held out, in their order.

    Args:
        classes: All there are.
        held_out: Some of them.
        where: The file or folder that has the classes, for errors.

    Raises:
        DatasetError: A held-out class is unknown, none is held out, or all are.

    Example:
        >>> remaining_classes(["ace", "queen", "ten"], ["queen"], "cards.json")
        ('ace', 'ten')
    """
    check_names(held_out, classes, "--held-out", where)
    remaining = tuple(name for name in classes if name not in held_out)
    if not remaining:
        raise DatasetError(
            f"--held-out names all {len(classes)} classes of {where}, so that none is left to "
            "train on; hold out fewer"
        )
    if len(remaining) == len(classes):
        raise DatasetError(f"no class of {where} is held out; name some with --held-out")
    return remaining
