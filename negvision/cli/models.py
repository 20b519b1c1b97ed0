"""``negvision models``: the models that ``negvision train DATA --model NAME`` knows."""

import argparse

HELP = "list the models for `negvision train DATA --model NAME`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = ("detection", "segmentation", "classification", "faces")
    parser.add_argument("--task", choices=tasks, help="default: all")


def run(args: argparse.Namespace) -> int:
    """List; 0."""
    from negvision.engine.recipes.models import MODELS

    rows = [("name", "task", "image", "weights it starts from", "")]
    for name, recipe in MODELS.items():
        if args.task in (None, recipe.task):
            weights = recipe.weights or "none"
            rows.append((name, recipe.task, f"{recipe.side} px", weights, recipe.about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0
