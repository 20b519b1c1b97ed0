# Plain DeepLabV3+ on CamVid without people, scored by its largest logit: the baseline of AbeT.
_base_ = [
    "../_base_/models/deeplabv3plus_r18_slim.py",
    "../_base_/datasets/camvid_ood_segmentation.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/segmentation_slim_runtime.py",
]

model = dict(
    type="negvision.OODEncoderDecoder",
    score="max_logit",
    decode_head=dict(num_classes={{_base_.num_classes}}),
)

max_iters = 1000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]

randomness = dict(seed=0)
