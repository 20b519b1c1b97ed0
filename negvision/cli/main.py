"""``negvision COMMAND ...``: parse the command line and run the command."""

import sys
from types import ModuleType

from negvision import __version__
from negvision.cli import (
    analyze_logs,
    benchmark,
    browse_assignments,
    browse_dataset,
    calibrate_ood,
    check_dataset,
    copy_configs,
    doctor,
    export,
    make_ood_split,
    ood_report,
    predict,
    publish_model,
    report,
    serve,
    test,
    train,
    voc_to_coco,
)
from negvision.cli.arguments import CommandParser
from negvision.errors import did_you_mean, is_user_error

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "test": test,
    "export": export,
    "benchmark": benchmark,
    "predict": predict,
    "publish-model": publish_model,
    "serve": serve,
    "calibrate-ood": calibrate_ood,
    "report": report,
    "ood-report": ood_report,
    "doctor": doctor,
    "check-dataset": check_dataset,
    "browse-dataset": browse_dataset,
    "browse-assignments": browse_assignments,
    "analyze-logs": analyze_logs,
    "voc-to-coco": voc_to_coco,
    "copy-configs": copy_configs,
    "make-ood-split": make_ood_split,
}


def build_parser() -> CommandParser:
    """The parser of the program, with one subparser per command."""
    parser = CommandParser(
        prog="negvision", epilog="Arguments of a command: negvision COMMAND --help"
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
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
    parser = build_parser()
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
