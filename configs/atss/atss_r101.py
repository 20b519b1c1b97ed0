# The backbone of the paper's 43.6 AP on test-dev, there trained for twice as many iterations.
_base_ = "../atss_r50.py"

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet101"))
)
