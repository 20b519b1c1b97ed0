# ATSS on the embedded digits, from ImageNet's weights, on two CPU cores: `make quickstart` runs
# this. `atss_digits.py` beside it starts from scratch and needs no weights.
_base_ = [
    "../_base_/models/atss_lite0.py",
    "../_base_/datasets/digits_detection.py",
    "../_base_/schedules/schedule_finetune.py",
    "../_base_/iteration_runtime.py",
]

# Digits look little like ImageNet: more of the backbone learns, and faster, than on photos.
model = dict(backbone=dict(frozen_stages=2), bbox_head=dict(num_classes=10))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.6))))

max_iters = 1200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=100, end=max_iters),
]

# Trained on small crops, the network finds more in larger images: 3.8 AP more than at 192 pixels,
# on the test images (docs/results.md).
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (224, 224)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# Two images in the work dir show which anchors train, and what is detected in the end.
custom_hooks = [
    dict(type="negvision.ChannelsLastHook"),
    dict(type="negvision.AssignmentSheetHook"),
    dict(type="negvision.PredictionSheetHook"),
]

randomness = dict(seed=0)
