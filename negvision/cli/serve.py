"""``negvision serve MODEL``: a local page to try a model on."""

import argparse
import contextlib
import ipaddress
import os
import re
import tempfile
from pathlib import Path

from negvision.cli.arguments import (
    add_device,
    add_face_detector,
    add_trust_checkpoint,
    checked,
    fraction,
    positive_int,
)
from negvision.errors import UserError

HELP = "open a local page to try a model on"
DESCRIPTION = (
    "Open a page on this machine to drop images on and to move thresholds. It contacts no other "
    "host, and uploads are deleted when the command ends."
)
# Gradio reads these when it is imported: no version check, no telemetry, no hub.
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
# What a request holds beside the file in it, in bytes.
_ENVELOPE = 1 << 16
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ROOT = re.compile(r"(https?://[^/?#\s]+)?(/[\w.~%-]+)*/?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="exported model (.onnx), checkpoint, work dir, or config")
    add("checkpoint", nargs="?", help="weights for the config")
    host = "address to listen on; default: 127.0.0.1, which only this machine can reach"
    add("--host", default="127.0.0.1", help=host)
    port = checked(int, "a port from 0 to 65535", lambda port: 0 <= port <= 65535)
    add("--port", type=port, default=7860, help="default: 7860; 0 takes any free port")
    root = "where a proxy shows the page: a path such as /demo, or a whole URL"
    kind = checked(str, "a path such as /demo, or a URL", lambda text: bool(_ROOT.fullmatch(text)))
    add("--root-path", type=kind, default="", metavar="PATH", help=root)
    allowed = (
        "a name under which the page is reached, such as demo.example.org, besides those of this "
        "machine; other names are refused. May be repeated"
    )
    name = "a name without scheme and port, such as demo.example.org"
    kind = checked(str.lower, name, _is_host)
    add("--allowed-host", type=kind, action="append", default=[], metavar="NAME", help=allowed)
    size = checked(float, "a number above 0, below 1000", lambda size: 0 < size < 1000)
    upload = "largest upload, in units of 1,048,576 bytes; default: 10"
    add("--max-upload-mb", type=size, default=10, metavar="MB", help=upload)
    pixels = "largest image, checked before decoding; default: %(default)s"
    add("--max-pixels", type=positive_int, default=1 << 25, metavar="N", help=pixels)
    start = "start value of its slider; default: "
    add(
        "--score-threshold",
        type=fraction,
        metavar="SCORE",
        help=f"{start}that of the model, or 0.3",
    )
    add("--ood-threshold", type=float, metavar="SCORE", help=f"{start}that of the model, if any")
    images = "images to click, or folders of them; default: some of installed packages"
    add("--examples", nargs="+", default=[], metavar="PATH", help=images)
    add_face_detector(parser)
    add_device(parser)
    add_trust_checkpoint(parser)


def _is_host(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return bool(_NAME.fullmatch(text))


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; 0."""
    from negvision.cli.serving.examples import find_examples
    from negvision.cli.serving.server import Guarded, is_loopback, listen, serve, url_of
    from negvision.data.images.header import MAX_PIXELS

    if args.max_pixels > MAX_PIXELS:
        raise UserError(f"--max-pixels {args.max_pixels}: give a number up to {MAX_PIXELS}")
    with (
        listen(args.host, args.port) as bound,
        tempfile.TemporaryDirectory(prefix="negvision-serve-") as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = _import_page()
        from negvision.inference.inferencer import Inferencer

        model = Inferencer(
            args.model,
            args.checkpoint,
            device=args.device,
            ood_threshold=args.ood_threshold,
            face_detector=args.face_detector,
            main_face=args.main_face,
            trust_checkpoint=args.trust_checkpoint,
        )
        start = args.score_threshold
        if start is None:
            # As the log shows it; all digits would fill the field beside the slider.
            start = float(f"{model.shown_threshold.value:.3g}")
        title = f"negvision: {Path(args.model).name}"
        max_upload = round(args.max_upload_mb * 2**20)
        examples = find_examples(args.examples, model, Path(folder), args.max_pixels)
        built = page.build_page(model, title, start, args.max_pixels, examples)
        root = args.root_path.rstrip("/")
        app = page.mount(built, max_upload, root)
        local = is_loopback(bound)
        hosts = (*_LOCAL_NAMES, *args.allowed_host) if local or args.allowed_host else None
        if not local:
            print(
                f"warning: --host {args.host} lets everyone who can reach this machine use the "
                "page, without a password or encryption",
                flush=True,
            )
        print(f"page  {url_of(bound, root)}  (Ctrl-C stops it)", flush=True)
        serve(Guarded(app, max_upload + _ENVELOPE, hosts, root), bound)
    return 0


def _import_page():
    """The module of the page, and with it Gradio, which must not contact any host."""
    os.environ.update(_QUIET)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; the page needs\n"
            "  pip install -r requirements/serve.txt -c requirements/constraints.txt"
        ) from None
    from negvision.cli.serving import page

    return page
