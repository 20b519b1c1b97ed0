"""``negvision COMMAND ...``: find the command and hand it the rest of the line."""

import importlib
import sys

from negvision import __version__
from negvision.errors import did_you_mean

# Command -> (module, one line of help). Modules are imported when their command is called.
COMMANDS = {
    "train": ("train", "train a model from a config"),
    "test": ("test", "evaluate a checkpoint, write or draw its detections"),
    "export": ("export", "write a model as ONNX and compare it with PyTorch"),
    "benchmark": ("benchmark", "weights, operations, memory, and images a second of a model"),
    "predict": ("predict", "write and draw what a model sees in images and videos"),
    "publish-model": ("publish_model", "write the weights of a checkpoint for others to use"),
    "serve": ("serve", "open a local page to try a model on"),
    "calibrate-ood": ("calibrate_ood", "choose the threshold above which all is unknown"),
    "report": ("report", "show a run, or compare several, on one HTML page"),
    "ood-report": ("ood_report", "show what an OOD evaluation found, on one HTML page"),
    "doctor": ("doctor", "versions, compiled kernels, GPUs, and what to do about problems"),
    "check-dataset": ("check_dataset", "read all data of a config and report what is at fault"),
    "browse-dataset": ("browse_dataset", "draw images of a config with their annotations"),
    "browse-assignments": ("browse_assignments", "draw boxes with their positive anchors"),
    "analyze-logs": ("analyze_logs", "plot losses and AP against iterations"),
    "voc-to-coco": ("voc_to_coco", "write COCO annotations from Pascal VOC's XML files"),
    "copy-configs": ("copy_configs", "write the suite's configs into this folder"),
    "make-ood-split": ("make_ood_split", "hold classes out of a data set, to be the unknown"),
}


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return (
        f"negvision {__version__}\n\nusage: negvision COMMAND [ARGUMENTS]\n\n"
        + "\n".join(lines)
        + "\n\nArguments of a command: negvision COMMAND --help"
    )


def main(argv: list[str] | None = None) -> int:
    """Run a command; its exit status, or 2 where there is no such command."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        close = did_you_mean(command, COMMANDS)
        print(f"negvision: no command {command!r}{close}\n\n{_help()}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"negvision.cli.{COMMANDS[command][0]}")
    return module.main(rest)
