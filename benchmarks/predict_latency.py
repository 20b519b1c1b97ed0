"""Time of each step of ``negvision predict``, as a share of the time of the network.

ATSS with a ResNet-18 at 320 x 320 pixels and random weights, on a JPEG photograph of 640 x 480;
ten boxes are drawn. Steps alternate, for the exported model and for PyTorch.

    python benchmarks/predict_latency.py --repeats 5    # a short look
    python benchmarks/predict_latency.py                # the numbers in results/
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
from mmengine.dataset import pseudo_collate

from negvision.export.formats import OLDEST_OPSET, save, write_onnx
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference import Inferencer
from negvision.inference.output import Writer
from negvision.inference.runtime import Detections, ExportedModel
from negvision.inference.sources import Frame
from negvision.inference.weights import build_model
from negvision.toy.photos import random_crop

CONFIG = "configs/atss/atss_r18.py"
SIDE, HEIGHT, WIDTH, DRAWN = 320, 480, 640, 10
# All steps but reading and decoding; none may take a larger share of the time of the network.
OURS, LIMIT = ("prepare", "results", "write", "draw and write"), 0.1


def make_files(source: str, folder: Path) -> tuple[Path, Path, Path, Path]:
    """A config, a checkpoint, an exported model and a photograph."""
    torch.manual_seed(0)
    cfg = Config.fromfile(source)
    cfg.model.backbone.init_cfg = None
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type.endswith("Resize"):
            transform.update(scale=(SIDE, SIDE), keep_ratio=False)
    files = [folder / name for name in ("atss.py", "atss.pth", "atss.onnx", "photograph.jpg")]
    cfg.dump(files[0])
    model = build_model(cfg).eval()
    with torch.no_grad():
        # With random weights, no score reaches the threshold.
        model.bbox_head.atss_cls.weight.mul_(30)
        model.bbox_head.atss_cls.bias.fill_(-2.0)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, files[1])
    save(write_onnx(*graph_and_metadata(cfg, model, {}), OLDEST_OPSET), files[2])
    pixels = random_crop(np.random.default_rng(0), "test", max(HEIGHT, WIDTH), WIDTH)[:HEIGHT]
    cv2.imwrite(str(files[3]), np.clip(pixels, 0, 255).astype(np.uint8))
    return tuple(files)


class Answers:
    """A network that returns a known answer at once."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, *_) -> Any:
        return self.answer

    test_step = __call__


def steps_of(model: Inferencer, photograph: Path, folder: Path) -> dict[str, Callable]:
    """Each step of a prediction on a photograph, on the output of the step before."""
    data = photograph.read_bytes()
    image = model.decode(data, "a.jpg")
    inner = model._model
    [batch] = inner.batches([image])
    if isinstance(inner, ExportedModel):
        inputs = inner.inputs_of(batch)

        def network():
            return inner.graph(inputs)

        quick = ExportedModel.of_graph(Answers(network()), inner.metadata)
    else:

        @torch.no_grad()
        def network():
            return inner.model.test_step(pseudo_collate(batch))

        quick = object.__new__(type(inner))
        quick.__dict__.update(inner.__dict__, model=Answers(network()))
    [found] = inner.run(batch)
    [judged] = model.predict([image])
    plain = Writer(folder / "plain", model, drawings=False).__enter__()
    drawing = Writer(folder / "drawn", model).__enter__()
    best = Detections(found.boxes[:DRAWN], np.linspace(0.9, 0.4, DRAWN), found.labels[:DRAWN])
    frame = Frame(image, "a.jpg")
    return {
        "read": photograph.read_bytes,
        "decode": lambda: model.decode(data, "a.jpg"),
        "prepare": lambda: list(inner.batches([image])),
        "network": network,
        "results": lambda: [model._with_thresholds(one) for one in quick.run(batch)],
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
    models = {}
    with tempfile.TemporaryDirectory(prefix="negvision_") as scratch:
        config, checkpoint, exported, photograph = make_files(options.config, Path(scratch))
        for name, arguments in {"exported": (exported,), "pytorch": (config, checkpoint)}.items():
            model = Inferencer(*arguments)
            boxes = len(model.predict([photograph])[0])
            steps = steps_of(model, photograph, Path(scratch))
            times = alternate(steps, options.repeats, warmup=3)
            network = times["network"]["median_s"]
            shares = {step: taken["median_s"] / network for step, taken in times.items()}
            models[name] = {"times": times, "shares_of_network": shares, "boxes": boxes}
            print(f"\n{name}, {boxes} boxes")
            for step, taken in times.items():
                print(f"  {step:<15}{1000 * taken['median_s']:8.2f} ms {shares[step]:8.1%}")
    largest = {
        name: max(one["shares_of_network"][step] for step in OURS) for name, one in models.items()
    }
    shares = ", ".join(f"{name} {share:.1%}" for name, share in largest.items())
    print(f"\nlargest share of {', '.join(OURS)}: {shares}")
    case = {"config": options.config, "side": SIDE, "photograph": [HEIGHT, WIDTH]}
    case |= {"threads": options.threads, "drawn": DRAWN}
    results = {"case": case, "models": models, "largest_share": largest, "limit": LIMIT}
    print(f"written to {write_results('predict_latency', results, options.out)}")
    return int(max(largest.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
