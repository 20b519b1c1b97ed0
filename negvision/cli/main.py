"""``negvision COMMAND ...``: parse the command line and run the command."""

import sys
from importlib import import_module

from negvision import __version__
from negvision.cli.arguments import CommandParser
from negvision.errors import did_you_mean, is_user_error

_NAMES = """
    train init models test export benchmark predict publish-model serve calibrate-ood report
    ood-report doctor check-dataset browse-dataset browse-assignments analyze-logs convert
    copy-configs make-ood-split
"""
COMMANDS = {
    name: import_module(f"negvision.cli.{name.replace('-', '_')}") for name in _NAMES.split()
}


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="negvision", epilog="Arguments of a command: negvision COMMAND --help"
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        about = getattr(module, "DESCRIPTION", f"{module.HELP[0].upper()}{module.HELP[1:]}.")
        command = commands.add_parser(name, help=module.HELP, description=about)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The command and its arguments; by default those of the process.

    Returns:
        The exit status of the command; 2 after a user error, which is printed on stderr.

    Raises:
        SystemExit: After ``--help``, ``--version`` or a usage error, as argparse raises it.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        parser.error(f"no command {argv[0]!r}{did_you_mean(argv[0], COMMANDS)}")
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except Exception as error:
        if not is_user_error(error):
            raise
        sys.stdout.flush()
        print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
        return 2
