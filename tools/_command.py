import sys


def run(name: str) -> None:
    """Run a command of negvision with the rest of the command line, and exit with its status."""
    try:
        from negvision.cli.main import main
    except ModuleNotFoundError as error:
        print(
            f"{sys.executable} has no module {error.name!r}: activate the environment of negvision "
            "(source .venv/bin/activate), or start this with its interpreter",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(main([name, *sys.argv[1:]]))
