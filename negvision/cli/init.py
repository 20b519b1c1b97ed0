"""``negvision init DATA``: write the config that ``negvision train DATA`` would train."""

import argparse

from negvision.cli.arguments import add_trust_checkpoint, announce
from negvision.cli.data_options import add_data_options, config_of_data

HELP = "write the config for a folder of annotated images, without training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folder = "folder of annotated images, or its data.yaml, JSON or CSV file"
    parser.add_argument("config", metavar="DATA", help=folder)
    parser.add_argument("--work-dir", help="folder to write to (default: work_dirs/NAME)")
    add_data_options(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Write; 0."""
    announce(args.config)
    from negvision.visualization import shown_path

    print(f"train it: negvision train {shown_path(config_of_data(args))}")
    return 0
