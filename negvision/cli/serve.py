"""``negvision serve MODEL``: a local page to try a model on."""

import argparse
import os
import tempfile
from pathlib import Path

from negvision.cli.serving.server import Guarded, is_loopback, listen, serve, url_of
from negvision.cli.serving.uploads import MAX_PIXELS
from negvision.data.images.header import MAX_PIXELS as MOST_PIXELS
from negvision.errors import UserError, reports_user_errors

# Gradio reads these as it is imported: no version check, no telemetry, no hub.
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
# What a request has beside the file in it.
_ENVELOPE = 1 << 16
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision serve",
        description="Open a page on this machine to drop images on and move thresholds. It asks no "
        "other host for anything, and what is dropped is gone when the command ends.",
    )
    parser.add_argument("model", help="an exported model (.onnx), or a config")
    parser.add_argument("checkpoint", nargs="?", help="weights for the config")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; default: 127.0.0.1, which this machine alone can reach",
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="default: 7860; 0 takes any that is free"
    )
    parser.add_argument(
        "--max-upload-mb",
        type=float,
        default=10,
        metavar="MB",
        help="files may have so many megabytes (of 1,048,576 bytes); default: 10",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"images may have so many pixels, which is looked at before they are decoded; "
        f"default: {MAX_PIXELS}",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="SCORE",
        help="where its slider starts; default: 0.3",
    )
    parser.add_argument(
        "--ood-threshold",
        type=float,
        metavar="SCORE",
        help="where its slider starts; default: the threshold of the model, if it has one",
    )
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="unpickle whatever the checkpoint holds, which can run any code",
    )
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    for option, value, low, high in (
        ("--port", args.port, 0, 65535),
        ("--max-pixels", args.max_pixels, 1, MOST_PIXELS),
        ("--score-threshold", args.score_threshold, 0, 1),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(f"{option} {value}: give a number from {low:,} to {high:,}")
    if not 0 < args.max_upload_mb < 1000:
        raise UserError(f"--max-upload-mb {args.max_upload_mb}: give a number above 0, below 1,000")


def _load_page():
    """The module of the page, with Gradio, which may ask nothing of anyone."""
    os.environ.update(_QUIET)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; the page takes\n"
            "  pip install -r requirements/serve.txt -c requirements/constraints.txt"
        ) from None
    from negvision.cli.serving import page

    return page


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    _check(args)
    with (
        listen(args.host, args.port) as bound,
        tempfile.TemporaryDirectory(prefix="negvision-serve-") as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = _load_page()
        from negvision.inference import Inferencer

        model = Inferencer(
            args.model,
            args.checkpoint,
            device=args.device,
            ood_threshold=args.ood_threshold,
            trust_checkpoint=args.trust_checkpoint,
        )
        start = page.SCORE_THRESHOLD if args.score_threshold is None else args.score_threshold
        title = f"negvision: {Path(args.model).name}"
        max_upload = round(args.max_upload_mb * 2**20)
        app = page.mount(page.build_page(model, title, start, args.max_pixels), max_upload)
        local = is_loopback(bound)
        if not local:
            print(
                f"warning: --host {args.host} lets everyone who reaches this machine use the page; "
                "there is no password, and nothing is encrypted",
                flush=True,
            )
        print(f"page  {url_of(bound)}  (Ctrl-C ends it)", flush=True)
        serve(Guarded(app, max_upload + _ENVELOPE, _LOCAL_NAMES if local else None), bound)
    return 0
