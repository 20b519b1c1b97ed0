"""``negvision COMMAND ...``: parse the command line and run the command."""

import sys
import traceback
from importlib import import_module

from negvision import __version__
from negvision.cli.arguments import CommandParser, add_debug
from negvision.errors import did_you_mean, is_user_error
from negvision.unexpected import describe

_NAMES = """
    train init models tune test compare compress export benchmark predict publish-model serve
    calibrate calibrate-ood report ood-report doctor check-dataset audit mine-negatives
    browse-dataset browse-assignments analyze-logs convert copy-configs make-ood-split verify
    enroll search embed align calibrate-faces
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
        add_debug(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The command and its arguments; by default those of the process.

    Returns:
        The exit status of the command; 2 after an error, which is one block on stderr. The
        traceback is printed with ``--debug``, and written to the log file of a run.

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
        sys.stdout.flush()
        debug = "debug" in args
        print(f"\n{describe(error)}{_traceback_of(error, debug)}\n", file=sys.stderr)
        return 2


def _traceback_of(error: Exception, debug: bool) -> str:
    """The traceback; without ``debug`` where it is, if the error is not the user's."""
    text = "".join(traceback.format_exception(error)).rstrip()
    if debug:
        return f"\n\n{text}"
    if is_user_error(error):
        return ""
    log = None
    if "mmengine.logging" in sys.modules:
        from negvision.engine.quiet import log_to_file

        log = log_to_file(text)
    return "\n--debug prints the traceback" + (f", which is also in {log}" if log else "")
