"""Whatever raises, a command ends with one block that names it, and with status 2."""

import pytest
from helpers.commands import command
from mmcv.transforms import BaseTransform
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.hooks import Hook

from negvision.engine.config import check

run_train = command("train")


@TRANSFORMS.register_module()
class FailsOnSixth(BaseTransform):
    def transform(self, results):
        if results["img_path"].endswith("5.png"):
            raise KeyError("mask")
        return results


@HOOKS.register_module()
class FailsAfterStep(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise ZeroDivisionError("no steps")


STEP = "pipeline = [*pipeline[:2], dict(type='FailsOnSixth'), *pipeline[2:]]\n"
IN_TRAIN = "train_dataloader = dict(dataset=dict(pipeline=pipeline), num_workers={})\n"
MOSAIC = "pipeline = [*pipeline[:2], dict(type='Mosaic', img_scale=(64, 64)), *pipeline[2:]]\n"
CASES = {
    "a transform": (STEP + IN_TRAIN.format(0), ["5.png: KeyError: 'mask' in FailsOnSixth"]),
    "a transform of a worker": (
        STEP + IN_TRAIN.format(1),
        ["5.png: KeyError: 'mask' in FailsOnSixth"],
    ),
    "a builder": (
        "model = dict(backbone=dict(depth=19))\n",
        ["KeyError: 'invalid depth 19 for resnet'", "in: ResNet (model.backbone)"],
    ),
    "a hook": (
        "custom_hooks = [dict(type='FailsAfterStep')]\n",
        ["ZeroDivisionError: no steps", "in: FailsAfterStep (custom_hooks.0)", "sample: /"],
    ),
    "a mixing transform": (
        MOSAIC + IN_TRAIN.format(0),
        ["train_dataloader.dataset.pipeline.2: Mosaic joins", "type='MultiImageMixDataset'"],
    ),
    "a missing package": (
        "visualizer = dict(vis_backends=[dict(type='WandbVisBackend')])\n",
        ["visualizer.vis_backends.0: WandbVisBackend needs the package wandb", "pip install wandb"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_block_names_what_failed(tiny_config, tmp_path, capsys, monkeypatch, case):
    text, expected = CASES[case]
    base = f"_base_ = {str(tiny_config)!r}\n"
    before = tiny_config.read_text().split("squares = ")[0].split("pipeline = ")[1]
    (tmp_path / "changed.py").write_text(
        f"{base}image_meta = ('img_id', 'img_path', 'ori_shape', "
        f"'img_shape', 'scale_factor')\npipeline = {before}{text}"
    )
    monkeypatch.setattr(check, "find_spec", lambda name: None if name == "wandb" else name)
    work = tmp_path / "work"
    assert run_train(tmp_path / "changed.py", "--work-dir", work) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    for part in expected:
        assert part in printed.err
