"""The cost of AbeT's head in a forward pass for boxes and for pixels, compared to the plain head.

Both networks have the same weights except for the classifier and get the same input, alternating
in one process. Prints the ratio of the full forward passes, and the difference of the classifiers
alone over the plain forward pass, which is less sensitive to other load::

    python benchmarks/abet_overhead.py [--device cuda]

``--scores`` measures instead what each OOD score adds to the small detector of playing cards: its
last layer and score, minus the last layer alone, over a forward pass. Banks have 2,500 features,
which is the most by default, or as many as the name says::

    NEGVISION_DATA=... python benchmarks/abet_overhead.py --scores --repeats 40
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from harness import alternate, arguments, write_results
from mmengine.registry import DATASETS, MODELS, DefaultScope

import negvision  # noqa: F401  (serves mmcv._ext before mmdet is imported)
from negvision.engine.config.reading import load_config
from negvision.ood import (
    FEATURE_SCORE_NAMES,
    SCORE_NAMES,
    AbeTLogits,
    LinearLogits,
    fit_statistics,
    ood_score,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = (*SCORE_NAMES, *FEATURE_SCORE_NAMES)
SHAPINGS = ("react", "ash", "scale", "dice")
# With 100 RoIs each, of which half or more are taken for objects: more than the largest bank takes.
FITTED_IMAGES = 120
# Task -> config, scope, image size, change to the plain network, classifier of a network.
TASKS = {
    "boxes": (
        "abet_faster_rcnn_r50.py",
        "mmdet",
        (800, 1344),
        lambda model: model.roi_head.bbox_head.update(type="negvision.OODBBoxHead", score="msp"),
        lambda model: model.roi_head.bbox_head.fc_cls,
    ),
    "pixels": (
        "abet_deeplabv3plus_r50.py",
        "mmseg",
        (512, 1024),
        lambda model: model.update(type="negvision.OODEncoderDecoder", score="max_logit"),
        lambda model: model.decode_head.conv_seg,
    ),
}


def main() -> None:
    """Measure, print and write the results."""
    parser = arguments(__doc__, "abet_overhead", repeats=5, devices=True)
    parser.add_argument("--scores", action="store_true", help="the cost of each OOD score")
    args = parser.parse_args()
    if args.scores:
        write_results("ood_score_cost", measure_scores(args), args.out)
        return
    rows = {task: measure(task, args) for task in TASKS}
    suffix = "" if args.device == "cpu" else f"_{args.device}"
    write_results(f"abet_overhead{suffix}", {"device": args.device, **rows}, args.out)


@torch.no_grad()
def measure(task: str, args: argparse.Namespace) -> dict:
    """Seconds of both networks and of both classifiers."""
    config, scope, size, make_plain, classifier = TASKS[task]
    abet = load_config(CONFIGS / config).model
    plain = copy.deepcopy(abet)
    make_plain(plain)
    networks, features = {}, {}
    torch.manual_seed(0)
    for name, cfg in (("plain", plain), ("abet", abet)):
        cfg.backbone.init_cfg = None
        with DefaultScope.overwrite_default_scope(scope):
            networks[name] = MODELS.build(cfg).to(args.device).eval()
    networks["abet"].load_state_dict(networks["plain"].state_dict(), strict=False)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    sample = sample_of(task, size)
    for name, network in networks.items():
        handle = classifier(network).register_forward_pre_hook(
            lambda _, inputs, name=name: features.__setitem__(name, inputs[0])
        )
        forward(network, image, sample)
        handle.remove()
    full = alternate(
        {name: lambda n=network: forward(n, image, sample) for name, network in networks.items()},
        args.repeats,
        device=args.device,
    )
    alone = alternate(
        {
            name: lambda n=network, h=features[name]: classifier(n)(h)
            for name, network in networks.items()
        },
        20 * args.repeats,
        device=args.device,
    )
    forward_s, abet_s = (full[name]["median_s"] for name in ("plain", "abet"))
    extra = alone["abet"]["median_s"] - alone["plain"]["median_s"]
    row = {
        "config": config,
        "image": size,
        "feature": list(features["abet"].shape),
        "forward": full,
        "classifier": alone,
        "ratio_of_forward_passes": abet_s / forward_s,
        "extra_of_classifier_over_forward": extra / forward_s,
    }
    print(
        f"{task:<7} {size[0]} x {size[1]}: forward {forward_s * 1e3:.1f} ms plain, "
        f"{abet_s * 1e3:.1f} ms AbeT, ratio {abet_s / forward_s:.3f}; the classifier adds "
        f"{extra * 1e3:.2f} ms, {extra / forward_s:+.2%} of a forward pass",
        flush=True,
    )
    return row


@torch.no_grad()
def measure_scores(args: argparse.Namespace) -> dict:
    """Seconds of a forward pass for boxes, and of its last layer with each score."""
    torch.manual_seed(0)
    cfg = load_config(CONFIGS / "abet" / "cards_faster_rcnn_lite0.py")
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = cfg.test_pipeline
    with DefaultScope.overwrite_default_scope("mmdet"):
        network = MODELS.build(cfg.model)
        images = DATASETS.build(dataset)
    network.init_weights()
    network.to(args.device).eval()
    seen: list[torch.Tensor] = []
    last = network.roi_head.bbox_head.fc_cls
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for index in range(FITTED_IMAGES):
        forward(network, images[index]["inputs"], images[index]["data_samples"])
    handle.remove()
    layers = layers_with_scores(last.in_features, last.out_features)
    for layer in layers.values():
        layer.to(args.device).eval()
        with fit_statistics(layer):
            layer(torch.cat(seen))
    classes = last.out_features - 1

    def scored(name: str) -> torch.Tensor:
        logits, value = layers[name](seen[0])
        kind = name.partition(",")[0]
        return ood_score(kind if kind in NAMES else "energy", logits[:, :classes], value)

    one = images[0]
    functions = {
        "forward": lambda: forward(network, one["inputs"], one["data_samples"]),
        "first": lambda: layers["no score"](seen[0]),  # after the forward pass nothing is cached
        "no score": lambda: layers["no score"](seen[0]),
        **{name: lambda n=name: scored(n) for name in layers if name != "no score"},
    }
    taken = alternate(functions, args.repeats, warmup=3, device=args.device)
    del taken["first"]
    of_pass, bare = (taken.pop(name)["median_s"] for name in ("forward", "no score"))
    extra = {name: values["median_s"] - bare for name, values in taken.items()}
    print(f"forward pass {of_pass * 1e3:.1f} ms, {len(seen[0])} RoIs\n| score | ms | % |")
    for name, seconds in extra.items():
        print(f"| {name} | {seconds * 1e3:.2f} | {seconds / of_pass:.2%} |", flush=True)
    return {
        "device": args.device,
        "threads": torch.get_num_threads(),
        "rois": len(seen[0]),
        "bank": int(layers["knn"].feature_score.count),
        "image": list(one["inputs"].shape[-2:]),
        "forward_s": of_pass,
        "extra_s": extra,
        "share_of_forward": {name: seconds / of_pass for name, seconds in extra.items()},
    }


def layers_with_scores(features: int, outputs: int) -> dict[str, torch.nn.Module]:
    """The last layers by the score or shaping that they compute."""
    bare = LinearLogits(features, outputs)
    inner = {"logits": "inner", "temperature": False}
    banks: dict[str, str | dict] = {name: name for name in FEATURE_SCORE_NAMES}
    for size in (1000, 5000):
        for kind in ("knn", "nnguide"):
            banks[f"{kind}, bank of {size:,}"] = {"type": kind, "samples": size}
    return {
        "no score": bare,
        **{name: bare for name in SCORE_NAMES if name != "abet"},
        **{n: LinearLogits(features, outputs, score, outputs - 1) for n, score in banks.items()},
        "abet": AbeTLogits(features, outputs, foreground=outputs - 1),
        **{n: AbeTLogits(features, outputs, **inner, shaping={"type": n}) for n in SHAPINGS},
    }


def sample_of(task: str, size: tuple[int, int]):
    """A sample without annotations."""
    meta = {
        "img_shape": size, "ori_shape": size, "pad_shape": size, "scale_factor": (1.0, 1.0),
        "batch_input_shape": size, "img_id": 0, "img_path": "",
    }  # fmt: skip
    if task == "boxes":
        from mmdet.structures import DetDataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    return Sample(metainfo=meta)


def forward(network, image, sample):
    """One prediction, from the image to the samples."""
    return network.test_step({"inputs": [image], "data_samples": [sample.clone()]})


if __name__ == "__main__":
    main()
