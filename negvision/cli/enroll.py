"""``negvision enroll FOLDER --model M --out GALLERY``: make a gallery of known people."""

import argparse
from pathlib import Path

from negvision.cli.arguments import add_face_model, positive_int
from negvision.cli.verify import open_model
from negvision.errors import Problems, UserError

HELP = "make a gallery of known people from a folder for each person"
DESCRIPTION = (
    "Embed the images of known people and write a gallery, in which `negvision search` finds them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", help="folder with a folder of images for each person")
    add("--out", required=True, metavar="DIR", help="folder of the gallery")
    add("--batch-size", type=positive_int, default=8, metavar="N", help="default: 8")
    add_skip_bad(parser)
    add_face_model(parser)


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    skip = "leave out images that cannot be used and go on; the exit status is then 1"
    parser.add_argument("--skip-bad", action="store_true", help=skip)


class LeftOut(Problems):
    """Collects what is left out with ``--skip-bad``; without it, the first error ends the run."""

    def __init__(self, allowed: bool) -> None:
        super().__init__()
        self._allowed = allowed

    def __call__(self, error: UserError) -> None:
        if not self._allowed:
            raise type(error)(f"{error}\nTo leave out such files and go on, add --skip-bad.")
        self.add(getattr(error, "kind", "") or "image that cannot be used", str(error))

    def finish(self) -> int:
        """Print what was left out; the exit status."""
        if self:
            print(f"left out, so the exit status is 1: {self.summary()}\n{self.report()}")
        return 1 if self else 0


def run(args: argparse.Namespace) -> int:
    """Enroll; 0, or 1 if something was left out."""
    from negvision.inference.gallery import Gallery

    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: this is a file; name a folder")
    left_out = LeftOut(args.skip_bad)
    gallery = Gallery.enroll(open_model(args), args.folder, args.batch_size, left_out)
    gallery.save(out)
    print(f"{len(gallery):,} images of {len(gallery.people):,} people: {out}")
    return left_out.finish()
