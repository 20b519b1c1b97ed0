# Not in the paper: the same recipe on a backbone that trains on a small GPU.
_base_ = "../atss_r50.py"

model = dict(
    backbone=dict(depth=18, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
