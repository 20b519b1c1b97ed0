# MobileFaceNet with published weights on a part of LFW, at 112 x 112 pixels: to evaluate them, or
# to fine-tune from them with --cfg-options load_from=mobilefacenet.pt.
_base_ = "./lfw112_arcface_lite0.py"

model = dict(
    backbone=dict(_delete_=True, type="negvision.MobileFaceNet", variant="separable"),
    neck=dict(kind="gdc", in_channels=512),
    # Of ImageNet, with which the weights were trained.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
