# The network of the paper's best entry (50.7 AP on test-dev with multi-scale testing, which is
# left out here): ResNeXt-101 64x4d, deformable convolutions in stages 3 to 5, shorter sides of
# 640 to 800 pixels in training, 24 epochs. The paper also makes the last convolution of the
# head's towers deformable; mmdet's head has no such option, so the towers are plain here.
_base_ = [
    "../_base_/models/atss_r50_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/schedule_2x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        type="ResNeXt",
        depth=101,
        groups=64,
        base_width=4,
        dcn=dict(type="DCNv2", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://resnext101_64x4d"),
    )
)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="negvision.PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
