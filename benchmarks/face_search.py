"""Photographs of LFW searched in a gallery, and the time and memory of a query.

The people of ``lfw112/test_uncropped`` with two images or more are enrolled by one image each.
Their other images, and the images of all other people as strangers, are searched. Then a gallery of
a million random embeddings is searched, in a process of its own::

    python benchmarks/face_search.py MODEL --face-detector yunet_n_640_640.onnx
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import in_process_of_its_own, resident, write_results

SIZES, QUERIES = (128, 512), 20
ROWS = 1_000_000
FPIR = 0.01


def recognized(model, root: Path) -> dict:
    """Rank-1 and DIR at an FPIR of 1 %, of photographs as they are."""
    from negvision import Gallery
    from negvision.inference.gallery import embed_files, people_in

    names, files = people_in(root)
    vectors, kept = embed_files(model, files, 32)
    assert len(kept) == len(files)
    counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    enrolled = [row for name, row in first.items() if counts[name] > 1]
    gallery = Gallery([names[row] for row in enrolled], vectors[enrolled])
    hits, genuine, strangers = [], [], []
    for row, name in enumerate(names):
        if row in enrolled:
            continue
        [match] = gallery.search(vectors[row], top=1)
        if counts[name] > 1:
            hits.append(match.name == name)
            genuine.append(match.similarity)
        else:
            strangers.append(match.similarity)
    allowed = int(FPIR * len(strangers))
    threshold = float(np.sort(strangers)[::-1][allowed])  # of those above, one may not be exceeded
    found = np.array(hits) & (np.array(genuine) > threshold)
    return {
        "enrolled": len(enrolled),
        "searched": len(hits),
        "strangers": len(strangers),
        "rank1": float(np.mean(hits)),
        "dir_at_fpir_1e-2": float(found.mean()),
        "threshold": threshold,
    }


def query(folder: str) -> None:
    """Load a gallery, search it, and print median seconds and bytes beyond the start."""
    from negvision import Gallery

    rng = np.random.default_rng(1)
    before = resident()
    gallery = Gallery.load(folder)
    size = gallery.embeddings.shape[1]
    seconds = []
    for _ in range(QUERIES):
        vector = rng.normal(size=size)
        start = time.perf_counter()
        gallery.search(vector)
        seconds.append(time.perf_counter() - start)
    print(float(np.median(seconds)), resident() - before, gallery.embeddings.nbytes, sep=",")


def million(size: int) -> dict:
    """Time and memory of a query among a million embeddings."""
    from negvision import Gallery

    with tempfile.TemporaryDirectory() as folder:
        vectors = np.random.default_rng(0).standard_normal((ROWS, size), np.float32)
        # Two images a person.
        Gallery([f"person{row // 2:06d}" for row in range(ROWS)], vectors).save(folder)
        del vectors
        printed = in_process_of_its_own(__file__, "--query", folder)
    seconds, used, embeddings = map(float, printed.split(","))
    return {"dimensions": size, "seconds": seconds, "memory_to_embeddings": used / embeddings}


def main() -> None:
    """Measure, print and write the results."""
    if sys.argv[1:2] == ["--query"]:
        query(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--face-detector", required=True)
    args = parser.parse_args()
    from negvision import Inferencer

    root = Path(os.environ.get("NEGVISION_DATA", "data")) / "lfw112" / "test_uncropped"
    model = Inferencer(args.model, face_detector=args.face_detector, main_face=True)
    found = recognized(model, root)
    print(found)
    queries = [million(size) for size in SIZES]
    for row in queries:
        print(row)
    write_results("face_search", {"benchmark": "face_search", "lfw": found, "million": queries})


if __name__ == "__main__":
    main()
