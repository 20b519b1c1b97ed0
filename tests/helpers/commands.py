"""Run commands of ``negvision`` in this process."""

from collections.abc import Callable

from negvision.cli.main import main


def command(name: str) -> Callable[..., int]:
    """A function from the arguments of a command to its exit status."""

    def run(*argv: object) -> int:
        words = argv[0] if len(argv) == 1 and isinstance(argv[0], list | tuple) else argv
        try:
            return main([name, *map(str, words)])
        except SystemExit as end:  # argparse ends this way
            return end.code

    return run
