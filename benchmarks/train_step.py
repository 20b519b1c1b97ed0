"""One training step of ATSS R50: mmdet's head and assigner against negvision's.

Both have the same weights and batch and alternate in one process; medians. A step is forward,
backward and an SGD update. Also measured: the loss alone (targets and losses from the feature maps,
forward), where the two differ, and the parts of our step. The run fails if the losses differ.

    python benchmarks/train_step.py                    # results/train_step.json
    python benchmarks/train_step.py --device cuda      # batch 16 in bfloat16
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import statistics
import sys
import time
from pathlib import Path

import torch

# Before mmdet, which needs the mmcv._ext that negvision provides.
from harness import alternate, arguments, machine, require_operators, waiter, write_results

# isort: split
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

CONFIG = Path(__file__).parents[1] / "configs/atss_r50.py"
NAMES = ("mmdet", "negvision")
PARTS = ("network", "targets and losses", "backward", "update")


def detectors(depth: int, device: str) -> dict[str, torch.nn.Module]:
    """The config's detector as it is, and with mmdet's head, loss and assigner; equal weights."""
    init_default_scope("mmdet")
    ours = Config.fromfile(CONFIG).model
    ours.backbone.init_cfg = None
    ours.backbone.depth = depth
    if depth < 50:
        ours.neck.in_channels = [64, 128, 256, 512]
    theirs = copy.deepcopy(ours)
    theirs.bbox_head.type = "ATSSHead"
    theirs.bbox_head.loss_bbox = {"type": "GIoULoss", "loss_weight": 2.0}
    theirs.train_cfg.assigner = {"type": "ATSSAssigner", "topk": 9}
    torch.manual_seed(0)
    models = {"mmdet": MODELS.build(theirs), "negvision": MODELS.build(ours)}
    logging.disable(logging.INFO)  # a line for each weight
    models["mmdet"].init_weights()
    logging.disable(logging.NOTSET)
    models["negvision"].load_state_dict(models["mmdet"].state_dict())
    return {name: model.to(device).train() for name, model in models.items()}


def batch_of(images: int, boxes: int, height: int, width: int, device: str):
    g = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        center = torch.rand(boxes, 2, generator=g) * torch.tensor([width, height])
        half = (torch.rand(boxes, 2, generator=g) ** 2 * 400 + 4) / 2
        shape = {"img_shape": (height, width), "pad_shape": (height, width)}
        sample = DetDataSample(metainfo=shape)
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([center - half, center + half], 1),
            labels=torch.randint(80, (boxes,), generator=g),
        ).to(device)
        samples.append(sample)
    return torch.randn(images, 3, height, width, generator=g).to(device), samples


def total(losses: dict) -> torch.Tensor:
    return sum(sum(v) if isinstance(v, list | tuple) else v for v in losses.values())


def main() -> None:
    parser = arguments(__doc__, "train_step", devices=True)
    parser.add_argument("--batch", type=int, help="default: 2, on CUDA 16")
    parser.add_argument("--boxes", type=int, default=20, help="an image")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], help="height width")
    parser.add_argument("--depth", type=int, default=50, choices=[18, 34, 50, 101])
    parser.add_argument("--repeats", type=int, help="default: 3, on CUDA 20")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    batch = options.batch or (16 if cuda else 2)
    repeats = options.repeats or (20 if cuda else 3)
    height, width = options.size
    require_operators()
    models = detectors(options.depth, options.device)
    images, samples = batch_of(batch, options.boxes, height, width, options.device)
    metas = [sample.metainfo for sample in samples]
    truths = [sample.gt_instances for sample in samples]
    optimizers = {n: torch.optim.SGD(m.parameters(), lr=0.0) for n, m in models.items()}
    synchronize = waiter(options.device)

    def precision():
        return torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext()

    last: dict[str, float] = {}

    def step(name: str) -> None:
        optimizers[name].zero_grad()
        with precision():
            loss = total(models[name].loss(images, samples))
        loss.backward()
        optimizers[name].step()
        last[name] = loss.detach()

    features = {}
    for name, model in models.items():
        with torch.no_grad(), precision():
            features[name] = model.bbox_head(model.extract_feat(images))

    def loss_alone(name: str) -> None:
        with torch.no_grad(), precision():
            models[name].bbox_head.loss_by_feat(*features[name], truths, metas)

    def parts() -> dict[str, float]:
        """Seconds of each part of one step of ours, with the device synchronized in between."""
        model, marks = models["negvision"], [time.perf_counter()]

        def mark() -> None:
            if synchronize is not None:
                synchronize()
            marks.append(time.perf_counter())

        optimizers["negvision"].zero_grad()
        with precision():
            outputs = model.bbox_head(model.extract_feat(images))
            mark()
            loss = total(model.bbox_head.loss_by_feat(*outputs, truths, metas))
        mark()
        loss.backward()
        mark()
        optimizers["negvision"].step()
        mark()
        return dict(zip(PARTS, (b - a for a, b in itertools.pairwise(marks)), strict=True))

    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads; device {options.device}")
    print(
        f"ATSS R{options.depth}, {batch} images of {height} x {width}, {options.boxes} boxes an "
        f"image, {'bfloat16' if cuda else 'float32'}"
    )
    losses = alternate(
        {n: lambda n=n: loss_alone(n) for n in NAMES}, repeats * 3, 1, options.device
    )
    steps = alternate({n: lambda n=n: step(n) for n in NAMES}, repeats, 1, options.device)
    loss_of = {name: float(last[name]) for name in NAMES}
    if abs(loss_of["mmdet"] - loss_of["negvision"]) > 1e-3 * abs(loss_of["mmdet"]):
        sys.exit(f"the losses differ: {loss_of}")
    ratios = {}
    for title, times in (("step", steps), ("loss alone", losses)):
        ratio = times["mmdet"]["median_s"] / times["negvision"]["median_s"]
        ratios[title] = ratio
        print(
            f"{title:<10}  mmdet {times['mmdet']['median_s'] * 1e3:>9.1f} ms   "
            f"negvision {times['negvision']['median_s'] * 1e3:>9.1f} ms   {ratio:.2f} x"
        )
    of_parts = [parts() for _ in range(repeats)]
    breakdown = {part: statistics.median(run[part] for run in of_parts) for part in PARTS}
    whole = sum(breakdown.values())
    print("ours: " + ", ".join(f"{part} {s / whole:.1%}" for part, s in breakdown.items()))
    write_results(
        "train_step_cuda" if cuda else "train_step",
        {
            "depth": options.depth,
            "batch": batch,
            "size": [height, width],
            "boxes": options.boxes,
            "precision": "bfloat16" if cuda else "float32",
            "step": steps,
            "loss_alone": losses,
            "parts_of_negvision_s": breakdown,
            "mmdet_over_negvision": ratios,
            "loss": loss_of,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
