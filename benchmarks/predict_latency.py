"""Where the time of ``negvision predict`` goes, step by step, as shares of the network's.

ATSS with a ResNet-18 at 320 x 320 pixels, weights drawn at random, on a photograph of 640 x 480 in
JPEG; ten boxes are drawn. Steps run in turns, exported and in PyTorch.

    python benchmarks/predict_latency.py --repeats 5    # a short look
    python benchmarks/predict_latency.py                # the figures in results/
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from harness import alternate, machine, write_results
from mmengine.config import Config

from negvision.export.formats import OLDEST_OPSET, save, write_onnx
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference import Inferencer
from negvision.inference.output import OutputFolder, Writer
from negvision.inference.runtime import Detections, ExportedModel
from negvision.inference.sources import Frame
from negvision.inference.weights import load_model
from negvision.toy.photos import random_crop

CONFIG = "configs/atss/atss_r18.py"
SIDE, HEIGHT, WIDTH = 320, 480, 640
DRAWN = 10
# All but reading and decoding; none may take a larger share of the network's time.
OURS, LIMIT = ("prepare", "results", "write", "draw and write"), 0.1


def make_files(source: str, folder: Path) -> tuple[Path, Path, Path, Path]:
    """A config, a checkpoint, an exported model and a photograph."""
    torch.manual_seed(0)
    cfg = Config.fromfile(source)
    cfg.model.backbone.init_cfg = None
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type.endswith("Resize"):
            transform.update(scale=(SIDE, SIDE), keep_ratio=False)
    config, checkpoint = folder / "atss.py", folder / "atss.pth"
    cfg.dump(config)
    model = _built(cfg)
    with torch.no_grad():
        # As drawn, no score reaches the threshold.
        model.bbox_head.atss_cls.weight.mul_(30)
        model.bbox_head.atss_cls.bias.fill_(-2.0)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, checkpoint)
    model, meta = load_model(cfg, checkpoint)
    graph, metadata = graph_and_metadata(cfg, model, meta)
    save(write_onnx(graph, metadata, OLDEST_OPSET, False), folder / "atss.onnx")
    photograph = folder / "photograph.jpg"
    pixels = random_crop(np.random.default_rng(0), "test", max(HEIGHT, WIDTH), WIDTH)[:HEIGHT]
    cv2.imwrite(str(photograph), np.clip(pixels, 0, 255).astype(np.uint8))
    return config, checkpoint, folder / "atss.onnx", photograph


def _built(cfg: Config) -> torch.nn.Module:
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(cfg.model.copy())


class Answers:
    """In the place of a network: answers at once what it answered before."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, *_) -> Any:
        return self.answer

    test_step = __call__


def steps_of(model: Inferencer, photograph: Path, folder: Path) -> dict[str, Callable]:
    """Each step of a prediction on a photograph, on what the step before made."""
    data = photograph.read_bytes()
    image = model.decode(data, "a.jpg")
    inner = model._model
    [batch] = inner.batches([image])
    if isinstance(inner, ExportedModel):
        inputs = inner.inputs_of(batch)
        answer = inner.graph(inputs)
        quick = ExportedModel.of_graph(Answers(answer), inner.metadata)
        network = lambda: inner.graph(inputs)  # noqa: E731
    else:
        from mmengine.dataset import pseudo_collate

        def network():
            with torch.no_grad():
                return inner.model.test_step(pseudo_collate(batch))

        quick = object.__new__(type(inner))
        quick.__dict__.update(inner.__dict__, model=Answers(network()))
    [found] = inner.run(batch)
    judged = model._judged(found)
    plain = Writer(OutputFolder(folder / "plain"), model, pictures=False)
    drawing = Writer(OutputFolder(folder / "drawn"), model)
    best = Detections(found.boxes[:DRAWN], np.linspace(0.9, 0.4, DRAWN), found.labels[:DRAWN])
    frame = Frame(image, "a.jpg")
    return {
        "read": photograph.read_bytes,
        "decode": lambda: model.decode(data, "a.jpg"),
        "prepare": lambda: list(inner.batches([image])),
        "network": network,
        "results": lambda: [model._judged(one) for one in quick.run(batch)],
        "write": lambda: plain.add(frame, judged),
        "draw and write": lambda: drawing.add(frame, best),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=CONFIG, help=f"of a detector; default: {CONFIG}")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; default: 2")
    parser.add_argument("--out", help="JSON file (default: results/predict_latency.json)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(machine()["cpu"], flush=True)
    figures = {}
    with tempfile.TemporaryDirectory(prefix="negvision_") as scratch:
        folder = Path(scratch)
        config, checkpoint, exported, photograph = make_files(options.config, folder)
        for name, model in {
            "exported": Inferencer(exported),
            "pytorch": Inferencer(config, checkpoint),
        }.items():
            boxes = len(model.predict([photograph])[0])
            times = alternate(steps_of(model, photograph, folder), options.repeats, warmup=3)
            network = times["network"]["median_s"]
            shares = {step: taken["median_s"] / network for step, taken in times.items()}
            figures[name] = {"times": times, "shares_of_network": shares, "boxes": boxes}
            print(f"\n{name}, {boxes} boxes")
            for step, taken in times.items():
                print(f"  {step:<15}{1000 * taken['median_s']:8.2f} ms {shares[step]:8.1%}")
    largest = {
        name: max(one["shares_of_network"][step] for step in OURS) for name, one in figures.items()
    }
    print(
        f"\nlargest share of {', '.join(OURS)}: "
        + ", ".join(f"{n} {s:.1%}" for n, s in largest.items())
    )
    case = {
        "config": options.config,
        "side": SIDE,
        "photograph": [HEIGHT, WIDTH],
        "threads": options.threads,
        "drawn": DRAWN,
    }
    path = write_results(
        "predict_latency",
        {"case": case, "models": figures, "largest_share": largest, "limit": LIMIT},
        options.out,
    )
    print(f"written to {path}")
    return int(max(largest.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
