"""``negvision embed SOURCE ... --model M --out FILE.npz``: the embeddings of faces."""

import argparse
from pathlib import Path

from negvision.cli.arguments import add_face_model, checked
from negvision.cli.enroll import LeftOut, add_skip_bad
from negvision.cli.verify import open_model
from negvision.errors import UserError

HELP = "write the embeddings of faces"
DESCRIPTION = (
    "Write the embeddings of images of faces, not normalized: the arrays embeddings (N, D) and "
    "names (N,)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="source", help="image, folder or pattern")
    file = checked(str, "FILE.npz", lambda name: name.endswith(".npz"))
    add("--out", required=True, type=file, metavar="FILE.npz", help="file to write")
    add_skip_bad(parser)
    add_face_model(parser)


def run(args: argparse.Namespace) -> int:
    """Embed; 0, or 1 if something was left out."""
    import numpy as np

    from negvision.files import atomic_write, check_writable
    from negvision.inference.sources import find_sources

    check_writable(Path(args.out))
    left_out = LeftOut(args.skip_bad)
    sources = find_sources(args.sources, leave_out=left_out)
    model = open_model(args)
    vectors, names = [], []
    for frame in sources.read(model.decode, left_out):
        try:
            [vector] = model.embed([model.face_of(frame.image, frame.name)], aligned=True)
        except UserError as error:
            left_out(error)
            continue
        vectors.append(vector)
        names.append(frame.name)
    if not names:
        raise UserError(f"nothing is left to embed; left out:\n{left_out.report()}")
    with atomic_write(args.out) as partial, partial.open("wb") as file:
        np.savez(file, embeddings=np.stack(vectors), names=np.array(names))
    print(f"{len(names):,} embeddings of {len(vectors[0])} dimensions: {args.out}")
    return left_out.finish()
