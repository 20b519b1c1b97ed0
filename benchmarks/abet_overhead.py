"""The cost of AbeT's head in a forward pass for boxes and for pixels, compared to the plain head.

Both networks have the same weights except for the classifier and get the same input, alternating
in one process. Prints the ratio of the full forward passes, and the difference of the classifiers
alone over the plain forward pass, which is less sensitive to other load::

    python benchmarks/abet_overhead.py [--device cuda]
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from harness import alternate, arguments, write_results
from mmengine.registry import MODELS, DefaultScope

import negvision  # noqa: F401  (serves mmcv._ext before mmdet is imported)
from negvision.engine.config.reading import load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
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
    args = arguments(__doc__, "abet_overhead", repeats=5, devices=True).parse_args()
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
