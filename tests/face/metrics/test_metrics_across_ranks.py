"""Two and three gloo processes give the figures of one."""

import json
from pathlib import Path

import numpy as np
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from helpers.face_cases import build, evaluated, predictions, random_case

from negvision.face.metrics import EmbeddingError

CASES = {
    "verification": ("VerificationMetric", {}),
    "identification": ("IdentificationMetric", {"fpirs": [0.1]}),
    "template": ("TemplateVerificationMetric", {"use_detector_score": True}),
}


def shares(ranks):
    """Ways to deal 48 samples out: as a sampler that pads, unevenly, and all to the last rank."""
    padded = np.arange(ranks * -(-48 // ranks)) % 48
    if ranks == 2:
        padded = np.append(padded, [0, 1])
    cut = np.split(np.random.default_rng(0).permutation(48), [5, 40][: ranks - 1])
    return {
        "padded": [padded[rank::ranks] for rank in range(ranks)],
        "uneven": cut,
        "one": [*[np.zeros(0, int)] * (ranks - 1), np.arange(48)],
    }


def all_figures(rank, ranks):
    figures = {}
    meta, embeddings, labels = random_case(21)
    for way, parts in shares(ranks).items():
        for name, (kind, arguments) in CASES.items():
            samples = predictions(embeddings, labels, parts[rank])
            metric = build(kind, meta, collect_dir=f"parts_{ranks}_{way}_{name}", **arguments)
            figures[f"{way} {name}"] = evaluated(metric, samples, batch=4)
    return figures


def error_of(rank, ranks):
    """What a rank is told of an embedding that only the last rank saw."""
    meta, embeddings, labels = random_case(21)
    embeddings[47] = np.nan
    parts = np.array_split(np.arange(48), ranks)
    metric = build("VerificationMetric", meta)
    try:
        evaluated(metric, predictions(embeddings, labels, parts[rank]))
    except EmbeddingError as error:
        return str(error)
    return "no error"


def run(rank, folder):
    # The same processes as a group of three, then two of them as a group of two.
    for ranks in (3, 2):
        if rank < ranks:
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/store_{ranks}", rank=rank, world_size=ranks
            )
            found = {"figures": all_figures(rank, ranks), "error": error_of(rank, ranks)}
            Path(folder, f"found_{ranks}_{rank}.json").write_text(json.dumps(found))
            dist.barrier()
            dist.destroy_process_group()


def test_figures_and_errors_are_those_of_one_process(tmp_path, monkeypatch):
    # Parts are collected in the current folder.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.spawn(run, (str(tmp_path),), nprocs=3, join=False)

    meta, embeddings, labels = random_case(21)
    alone = {
        name: evaluated(build(kind, meta, **arguments), predictions(embeddings, labels))
        for name, (kind, arguments) in CASES.items()
    }
    alone = json.loads(json.dumps(alone))
    while not context.join():
        pass
    for ranks in (2, 3):
        for rank in range(ranks):
            found = json.loads((tmp_path / f"found_{ranks}_{rank}.json").read_text())
            assert len(found["figures"]) == 9
            for key, figures in found["figures"].items():
                assert figures == alone[key.split()[1]], (ranks, rank, key)
            assert "1 of 48 embeddings are NaN" in found["error"]
            assert "sample 47, faces/47.jpg" in found["error"]
