"""``negvision search GALLERY PHOTO ...``: who is it?"""

import argparse
from pathlib import Path

from negvision.cli.arguments import add_face_model, positive_int
from negvision.cli.enroll import LeftOut, add_skip_bad
from negvision.cli.verify import add_threshold, open_model, source_of
from negvision.errors import UserError

HELP = "find who is on photographs among the people of a gallery"
DESCRIPTION = (
    "Name the people of a gallery who are most similar to a photograph. Nobody is found if no "
    "similarity reaches the threshold, which is that of the model or --threshold."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("gallery", help="folder that negvision enroll wrote")
    add("photos", nargs="+", metavar="photo", help="image, folder or pattern")
    add("--top", type=positive_int, default=3, metavar="N", help="people to name; default: 3")
    add_threshold(parser)
    add_skip_bad(parser)
    add_face_model(parser, required=False)


def run(args: argparse.Namespace) -> int:
    """Search; 0, or 1 if something was left out."""
    from negvision.inference.gallery import Gallery
    from negvision.inference.sources import find_sources

    gallery = Gallery.load(args.gallery)
    stored = gallery.about.get("face_detector")
    args.model = args.model or gallery.about.get("model")
    if not args.model or not Path(args.model).exists():
        raise UserError(f"{args.gallery} was made by {args.model}, which is not here; give --model")
    if args.face_detector is None and stored and Path(stored).is_file():
        args.face_detector = stored
    model = open_model(args)
    gallery.require_model(model)
    threshold = args.threshold
    if threshold is None and model.face_threshold is not None:
        threshold = model.face_threshold.value
    left_out = LeftOut(args.skip_bad)
    sources = find_sources(args.photos, leave_out=left_out)
    print(f"{source_of(args.threshold, model)}; {len(gallery.people):,} people")
    for frame in sources.read(model.decode, left_out):
        try:
            [vector] = model.embed([model.face_of(frame.image, frame.name)], aligned=True)
        except UserError as error:
            left_out(error)
            continue
        found = gallery.search(vector, args.top, threshold)
        nobody = found[0].known is False
        print(f"{frame.name}" + ": nobody; the most similar are" * nobody)
        for match in found:
            print(f"  {match.similarity:7.4f}  {match.name}  {match.file}")
    return left_out.finish()
