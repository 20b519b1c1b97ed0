# AbeT for the pixels of the embedded digits, on two CPU cores: the second of the three that
# `make quickstart-ood` runs. Its backbone is that of abet_boxes.py, which has to be trained before.
_base_ = [
    "../_base_/models/deeplabv3plus_r18_slim.py",
    "../_base_/datasets/digits_ood_segmentation.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/segmentation_slim_runtime.py",
]

model = dict(
    type="negvision.AbeTEncoderDecoder",
    backbone=dict(
        # That of the detector, but for the last stride.
        type="ResNet",
        strides=(2, 2, 1),
        init_cfg=dict(
            _delete_=True,
            type="Pretrained",
            checkpoint="work_dirs/abet_boxes/iter_1800.pth",
            prefix="backbone.",
        ),
    ),
    decode_head=dict(
        num_classes={{_base_.num_classes}},
        # Nine pixels of ten are background: without weights digits are classified much later.
        # The mean is over pixels that are not void all the same: mmseg weighs them then.
        loss_decode=dict(class_weight=[0.1] + [1.0] * 8, avg_non_ignore=False),
    ),
)

max_iters = 500
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]

randomness = dict(seed=0)
